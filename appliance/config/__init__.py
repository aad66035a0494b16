"""What the operator and the tenants have configured.

One YAML file becomes frozen values, once; nothing behind :func:`parse_config`
checks a setting again. A tenant's overlay lies on top, except for the keys
that only the operator may set (:data:`appliance.config.overlay.ADMIN_ONLY`).
Stands beside the layers: it knows the values of ``appliance.model`` and none
of the code that uses the settings.

============== ==========================================================
``schema``     every key there is, as structs
``fields``     what a single value must look like
``rules``      what must hold between keys
``checking``   finds everything that is wrong with a document, not the first
``documents``  YAML text to plain values and back, with the dangers left out
``loading``    text of a gateway config to a :class:`~.schema.GatewayConfig`
``overlay``    tenants' settings: check, merge, effective config, public view
``text_files`` reads the operator's files without being trapped by them
``secrets``    ``env:``, ``file:`` and ``cred:`` references to their values
``live``       the config of a running gateway: reload, keep the last good one
============== ==========================================================
"""
