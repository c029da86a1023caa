"""Candidate actions at the states of an episode, from the policy and from the environment."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ratchet_client.messages import Message, assistant
from streams.branch_events import BranchRequest, Source
from streams.branching.restored_episode import RestoredEpisode
from streams.branching.settings import BranchingSettings
from streams.environments.harness import canonical
from streams.environments.tool_call_mutations import mutations, texts_of
from streams.errors import ToolCallError
from streams.policy.served import Policy
from streams.sandboxes.protocol import Description


@dataclass(frozen=True, slots=True)
class Proposal:
    """An alternative that could be tried. Proposals of one `key` are the same action in other spellings.

    `promising`: the environment will likely make something of it.
    """

    action: Message
    key: str
    source: Source
    promising: bool = True


def propose(
    sampled: Iterable[Proposal],
    fill: Sequence[Proposal],
    seen: set[str],
    most: int,
    errors: int,
    generator: random.Random,
) -> tuple[Proposal, ...]:
    """At most `most` different actions whose keys are not among `seen`; theirs are added to it.

    The policy's own come first. Of those that promise nothing at most `errors` are taken, because errors teach too.
    Random ones of `fill` take the places that are left.
    """
    chosen: list[Proposal] = []
    for proposal in sampled:
        if len(chosen) == most:
            break
        if proposal.key in seen or not (proposal.promising or errors):
            continue
        errors -= not proposal.promising
        seen.add(proposal.key)
        chosen.append(proposal)
    unseen = {proposal.key: proposal for proposal in fill if proposal.key not in seen}
    for proposal in generator.sample(list(unseen.values()), min(most - len(chosen), len(unseen))):
        seen.add(proposal.key)
        chosen.append(proposal)
    return tuple(chosen)


@dataclass(slots=True)
class Suggestions:
    """Of one episode. Methods raise `SandboxError` as those of `RestoredEpisode` do."""

    request: BranchRequest
    episode: RestoredEpisode
    description: Description
    policy: Policy
    settings: BranchingSettings
    _allowed: dict[int, tuple[Proposal, ...]] = field(default_factory=dict)

    async def keys(self, actions: Sequence[Message]) -> tuple[str, ...]:
        """The canonical key of each action, one for all its spellings."""
        if actions and self.description.canonicalises:
            return await self.episode.canonical(actions)
        return tuple(canonical(action) for action in actions)

    async def sampled(self, step: int) -> tuple[list[Proposal], str]:
        """Actions sampled from the policy, repeats included, and the name of the model that answered.

        What the environment lists is proposed in its own spelling.
        """
        harness = self.description.harness
        samplings = [self.settings.sampling(temperature, harness) for temperature in self.settings.temperatures]
        samples = await self.policy.sample(
            self.request.state(step), self.request.tools(step), samplings, self.settings.samples
        )
        actions = self.episode.recorded([harness.parse(reply) for reply in samples.replies])
        allowed = {proposal.key: proposal.action for proposal in await self.allowed(step)}
        # Without a list it is not known before it is tried.
        known = self.description.lists_actions
        spelled = allowed if known else {}
        proposals = [
            Proposal(spelled.get(key, action), key, "policy", promising=key in allowed or not known)
            for action, key in zip(actions, await self.keys(actions), strict=True)
        ]
        return proposals, samples.model

    async def allowed(self, step: int) -> tuple[Proposal, ...]:
        """Actions that the environment lists or, where actions are tool calls, mutations of the recorded one."""
        if step not in self._allowed:
            source: Source = "mutation"
            if self.description.lists_actions:
                source, actions = (
                    "valid_actions",
                    list(map(assistant, self.episode.followed.states[step].valid_actions)),
                )
            else:
                actions = self._mutations(step)
            keys = await self.keys(actions)
            self._allowed[step] = tuple(
                Proposal(action, key, source) for action, key in zip(actions, keys, strict=True)
            )
        return self._allowed[step]

    def _mutations(self, step: int) -> list[Message]:
        assert self.episode.raw is not None
        request = self.episode.raw.request
        tools = request.tools(step)
        if not tools:
            return []
        context = texts_of(request.state(step))
        generator = random.Random(f"{self.settings.seed}/{request.event_id}/{step}")
        trusted, most = request.steps[step].action, 2 * self.settings.alternatives
        try:
            return self.episode.recorded(mutations(trusted, tools, context, generator, most))
        except ToolCallError:
            return []
