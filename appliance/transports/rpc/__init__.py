"""The Gateway's methods: what each is called, takes, returns and needs.

``table.METHODS`` is all there is to know: the authorization check, ``hello-ok``,
``openclawmu methods``, the reference page and the isolation suite read it. A
module per noun declares its methods and translates between wire shapes and
services. Nothing in here knows of sockets or frames.
"""
