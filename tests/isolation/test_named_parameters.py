"""Whatever names a thing says of which kind it is, or else why nothing is looked up by it."""

from collections.abc import Mapping

from appliance.transports.rpc.table import METHODS
from tests.isolation.named_parameters import HIDDEN, texts_of

NAMELESS: Mapping[str, tuple[str, ...]] = {
    "of a channel, which there is none of yet: passed over": (
        "agent accountId",
        "agent replyAccountId",
        "agent threadId",
        "agent groupId",
        "chat.send originatingAccountId",
        "chat.send originatingThreadId",
        "config.apply deliveryContext.accountId",
        "config.apply deliveryContext.threadId",
        "config.patch deliveryContext.accountId",
        "config.patch deliveryContext.threadId",
        "message.action accountId",
        "message.action requesterAccountId",
        "message.action requesterSenderId",
        "node.invoke turnSourceAccountId",
        "exec.approval.request turnSourceAccountId",
        "exec.approval.request turnSourceThreadId",
        "node.invoke turnSourceThreadId",
        "send accountId",
        "send threadId",
    ),
    "of a message in a channel: passed over": ("chat.send replyToId", "send replyToId"),
    "of a call in the client itself: passed over": ("exec.approval.request toolCallId",),
    "refused, whatever it names": (
        "agent internalRuntimeHandoffId",
        "agent execApprovalFollowupExpectedSessionId",
        "sessions.create catalogId",
    ),
    "of what this release does not have (projects, people, branches, profiles)": (
        "chat.metadata authProfileId",
        "chat.send expectedLeafEntryId",
        "sessions.create projectId",
        "sessions.list projectId",
        "sessions.list creatorId",
        "sessions.list ownerId",
        "sessions.list profileRelation.profileId",
        "sessions.list involvingProfileId",
        "sessions.search scope.projectId",
        "sessions.search scope.creatorId",
        "sessions.search scope.ownerId",
        "sessions.search scope.profileRelation.profileId",
        "sessions.search scope.involvingProfileId",
        "sessions.subscribe projectId",
        "sessions.subscribe creatorId",
        "sessions.subscribe ownerId",
        "sessions.subscribe profileRelation.profileId",
        "sessions.subscribe involvingProfileId",
        "sessions.usage creatorKey",
    ),
    "what a client says of itself": ("system-event deviceId", "system-event instanceId"),
}

# Settled with the engine; whoever brings it moves its names out of here.
LATER = (
    "admin.sandboxes.kill sandboxId",
    "artifacts.download taskId",
    "artifacts.get taskId",
    "artifacts.list taskId",
    "channels.logout accountId",
    "channels.pairing.approve accountId",
    "channels.pairing.approve requestId",
    "channels.pairing.dismiss accountId",
    "channels.pairing.dismiss requestId",
    "channels.pairing.list accountId",
    "channels.start accountId",
    "channels.stop accountId",
    "cron.get id",
    "cron.get jobId",
    "cron.remove id",
    "cron.remove jobId",
    "cron.run id",
    "cron.run jobId",
    "cron.run expectedProcessInstanceId",
    "cron.runs id",
    "cron.runs jobId",
    "cron.runs runId",
    "cron.scratch.get id",
    "cron.scratch.get jobId",
    "cron.scratch.set id",
    "cron.scratch.set jobId",
    "cron.update id",
    "cron.update jobId",
    "skills.install installId",
    "skills.install uploadId",
    "skills.update skillKey",
    "skills.update apiKey",
    "tasks.cancel taskId",
    "tasks.get taskId",
    "tenants.backups.delete key",
    "tenants.restore key",
    "web.login.start accountId",
    "web.login.wait accountId",
    "wizard.cancel sessionId",
    "wizard.next sessionId",
    "wizard.next answer.stepId",
    "wizard.status sessionId",
)


def nameless(*, available: bool) -> set[str]:
    """What is called like a name and does not say of what kind."""
    hidden = {(each.method, each.path) for each in HIDDEN}
    return {
        str(parameter)
        for method in METHODS
        if method.is_available is available
        for parameter in texts_of(method)
        if parameter.looks_like_a_name
        and parameter.kind is None
        and (parameter.method, parameter.path) not in hidden
    }


def test_what_names_a_thing_says_of_which_kind_it_is() -> None:
    reasoned = {each for those in NAMELESS.values() for each in those}

    assert nameless(available=True) == reasoned


def test_a_later_method_settles_its_names_when_it_comes() -> None:
    assert nameless(available=False) == set(LATER)
