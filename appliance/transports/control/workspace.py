"""Routes of the files in an agent's workspace, which ``files_door`` answers.

Whoever may look at everything of a tenant may read its files. Changing them
takes what changing its settings takes: they tell agents what to do.
"""

from appliance.model.tokens import Scope
from appliance.transports.control.route import JSON, Route, Who
from appliance.transports.schemas.workspace import (
    DeleteQuery,
    FileEntry,
    FileList,
    FileQuery,
    ListQuery,
)

BYTES = "application/octet-stream"
_FILES = "/v1/tenants/{id}/agents/{agent}/files"
_CONTENT = f"{_FILES}/content"

LIST = Route(
    name="files.list",
    method="GET",
    path=_FILES,
    who=Who.TENANT,
    summary="List a directory of an agent's workspace",
    handler=None,
    scope=Scope.READ,
    query=ListQuery,
    answer=FileList,
    failures=(413, 503),
)
DELETE = Route(
    name="files.delete",
    method="DELETE",
    path=_FILES,
    who=Who.TENANT,
    summary="Delete a file or a directory of a workspace",
    handler=None,
    scope=Scope.MANAGE,
    query=DeleteQuery,
    status=204,
    failures=(409, 412),
)
DOWNLOAD = Route(
    name="files.download",
    method="GET",
    path=_CONTENT,
    who=Who.TENANT,
    summary="Download a file of a workspace; Range, If-Range, If-Match and If-None-Match hold",
    handler=None,
    scope=Scope.READ,
    query=FileQuery,
    failures=(412, 416, 429, 503),
    produces=(BYTES,),
)
UPLOAD = Route(
    name="files.upload",
    method="PUT",
    path=_CONTENT,
    who=Who.TENANT,
    summary="Upload a file into a workspace; If-Match and If-None-Match: * hold",
    handler=None,
    scope=Scope.MANAGE,
    query=FileQuery,
    answer=FileEntry,
    failures=(408, 412, 413, 429),
    produces=(JSON,),
    uploads=True,
)

ROUTES = (LIST, DELETE, DOWNLOAD, UPLOAD)
