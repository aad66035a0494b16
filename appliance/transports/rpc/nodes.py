"""Methods that operators call about nodes; ``node_side`` has those that nodes call."""

import msgspec

from appliance.model.errors import InvalidRequest
from appliance.model.operator_scopes import OperatorScope
from appliance.model.tokens import Scope
from appliance.services.node_commands import DEFAULT_TIMEOUT, NodeCommand
from appliance.services.pairing_events import NodePairRequested
from appliance.transports.rpc.method import Method, MethodCall, NoParams
from appliance.transports.rpc.node_work_shapes import (
    NodeEnqueueParams,
    NodeEnqueueResult,
    NodeInvokeParams,
    NodeInvokeResult,
    WorkItemView,
)
from appliance.transports.rpc.nodes_shapes import (
    NodeDescribeResult,
    NodeListResult,
    NodePairApproveResult,
    NodePairDecisionParams,
    NodePairListResult,
    NodePairRejectResult,
    NodePairRemoveResult,
    NodePairRequestParams,
    NodePairRequestResult,
    NodePairVerifyResult,
    NodeParams,
    NodeRenameParams,
    NodeRenameResult,
    NodeVerifyParams,
    NodeView,
    PairedNode,
)


async def pair_request(call: MethodCall[NodePairRequestParams]) -> NodePairRequestResult:
    ip = "" if call.caller.is_admin else call.caller.ip
    request, created = await call.services.nodes.ask(call.awake, call.params.request(ip=ip))
    return NodePairRequestResult(
        status="pending", request=NodePairRequested.of(request), created=created
    )


async def pair_list(call: MethodCall[NoParams]) -> NodePairListResult:
    pending, paired = await call.services.nodes.pairings(call.awake)
    return NodePairListResult(
        pending=[NodePairRequested.of(request) for request in pending],
        paired=[PairedNode.of(node) for node in paired],
    )


async def pair_approve(call: MethodCall[NodePairDecisionParams]) -> NodePairApproveResult:
    request_id = call.params.request_id
    node, token = await call.services.nodes.approve(call.awake, call.caller, request_id)
    return NodePairApproveResult(request_id=request_id, node=PairedNode.of(node, token))


async def pair_reject(call: MethodCall[NodePairDecisionParams]) -> NodePairRejectResult:
    request = await call.services.nodes.reject(call.awake, call.caller, call.params.request_id)
    return NodePairRejectResult(request_id=request.request_id, node_id=request.subject_id)


async def pair_remove(call: MethodCall[NodeParams]) -> NodePairRemoveResult:
    await call.services.nodes.remove(call.awake, call.caller, call.params.node_id)
    return NodePairRemoveResult(node_id=call.params.node_id)


async def pair_verify(call: MethodCall[NodeVerifyParams]) -> NodePairVerifyResult:
    params = call.params
    node = await call.services.nodes.verify(call.awake, params.node_id, params.token)
    return NodePairVerifyResult(
        ok=node is not None, node=None if node is None else PairedNode.of(node)
    )


async def rename(call: MethodCall[NodeRenameParams]) -> NodeRenameResult:
    params = call.params
    name = await call.services.nodes.rename(
        call.awake, call.caller, params.node_id, params.display_name
    )
    return NodeRenameResult(node_id=params.node_id, display_name=name)


async def node_list(call: MethodCall[NoParams]) -> NodeListResult:
    nodes = call.services.nodes
    found = await nodes.list(call.awake)
    return NodeListResult(ts=nodes.now_ms(), nodes=[NodeView.of(known) for known in found])


async def describe(call: MethodCall[NodeParams]) -> NodeDescribeResult:
    nodes = call.services.nodes
    view = NodeView.of(await nodes.require(call.awake, call.params.node_id))
    return NodeDescribeResult(ts=nodes.now_ms(), **msgspec.structs.asdict(view))


async def invoke(call: MethodCall[NodeInvokeParams]) -> NodeInvokeResult:
    params = call.params
    if params.session_key is not None:
        call.session_key(params.session_key)  # refuses a foreign one
    command = params.command.strip()
    if not command:
        raise InvalidRequest.at("command", "names no command")
    payload = await call.services.nodes.commands.invoke(
        call.awake,
        NodeCommand(
            node_id=params.node_id,
            command=command,
            params=None if params.params is None else msgspec.json.encode(params.params),
            timeout=params.timeout_ms / 1000 if params.timeout_ms else DEFAULT_TIMEOUT,
            idempotency_key=params.idempotency_key,
        ),
    )
    return NodeInvokeResult(
        ok=True,
        node_id=params.node_id,
        command=command,
        payload=None if payload is None else msgspec.Raw(payload),
        payload_json=None if payload is None else payload.decode(),
    )


async def pending_enqueue(call: MethodCall[NodeEnqueueParams]) -> NodeEnqueueResult:
    params = call.params
    nodes = call.services.nodes
    await nodes.require(call.awake, params.node_id)
    revision, item = call.awake.state.node_queues.enqueue(
        params.node_id,
        params.type,
        priority=params.priority,
        expires_in_ms=params.expires_in_ms,
        now_ms=nodes.now_ms(),
    )
    return NodeEnqueueResult(
        node_id=params.node_id,
        revision=revision,
        queued=WorkItemView.of(item),
        wake_triggered=False,
    )


METHODS: tuple[Method, ...] = (
    Method(
        name="node.list",
        summary="List the nodes, connected and paired",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        result=NodeListResult,
        handler=node_list,
    ),
    Method(
        name="node.describe",
        summary="Show a node",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        params=NodeParams,
        result=NodeDescribeResult,
        handler=describe,
    ),
    Method(
        name="node.rename",
        summary="Give a node a name of your own",
        scope=OperatorScope.PAIRING,
        needs=Scope.MANAGE,
        params=NodeRenameParams,
        result=NodeRenameResult,
        handler=rename,
        audited="node.rename",
    ),
    Method(
        name="node.invoke",
        summary="Have a connected node do something that it declared",
        scope=OperatorScope.WRITE,
        needs=Scope.MANAGE,
        params=NodeInvokeParams,
        result=NodeInvokeResult,
        handler=invoke,
    ),
    Method(
        name="node.pair.request",
        summary="Ask for a node to be paired",
        scope=OperatorScope.PAIRING,
        needs=Scope.MANAGE,
        params=NodePairRequestParams,
        result=NodePairRequestResult,
        handler=pair_request,
    ),
    Method(
        name="node.pair.list",
        summary="List the paired nodes, and what waits for a decision",
        scope=OperatorScope.PAIRING,
        needs=Scope.READ,
        result=NodePairListResult,
        handler=pair_list,
    ),
    Method(
        name="node.pair.approve",
        summary="Pair a node; its token is shown once",
        scope=OperatorScope.PAIRING,
        needs=Scope.MANAGE,
        params=NodePairDecisionParams,
        result=NodePairApproveResult,
        handler=pair_approve,
        audited="node.pair",
    ),
    Method(
        name="node.pair.reject",
        summary="Refuse to pair a node",
        scope=OperatorScope.PAIRING,
        needs=Scope.MANAGE,
        params=NodePairDecisionParams,
        result=NodePairRejectResult,
        handler=pair_reject,
        audited="node.pair.reject",
    ),
    Method(
        name="node.pair.remove",
        summary="Forget a node and end its connections",
        scope=OperatorScope.PAIRING,
        needs=Scope.MANAGE,
        params=NodeParams,
        result=NodePairRemoveResult,
        handler=pair_remove,
        audited="node.unpair",
    ),
    Method(
        name="node.pair.verify",
        summary="Check a node's token",
        scope=OperatorScope.PAIRING,
        needs=Scope.READ,
        params=NodeVerifyParams,
        result=NodePairVerifyResult,
        handler=pair_verify,
    ),
    Method(
        name="node.pending.enqueue",
        summary="Ask a node to report something when it comes for its work",
        scope=OperatorScope.WRITE,
        needs=Scope.MANAGE,
        params=NodeEnqueueParams,
        result=NodeEnqueueResult,
        handler=pending_enqueue,
    ),
)
