"""How several gateways keep one limit: each may use up its rights, and gives of them to whoever runs short.

    rights of a gateway = ceil(limit / R) + what it was given - what it gave away        R = live gateways

    uses <= rights, always ──> together never more than limit + R - 1 in any minute, whatever is late, lost or doubled

A right is lowered where it is given before the other is told, so at no moment do two count on it: no answer is waited
for, no clock is compared, and a message that is lost only leaves rights unused until the next one says the same again
(what was given is told as a running total). What the others have *used* is told too, and only ever makes the room
smaller: it holds the limit while the set of gateways changes. The surprising rule: a gateway that has fallen silent
keeps its rights for a minute, for it may be cut off and serving; and where nobody can be heard at all, silence says
nothing, and R stays what it was.

After V. Balegas et al., "Extending Eventually Consistent Cloud Databases for Enforcing Numeric Invariants" (2015): a
bounded counter, here over a sliding window, where used rights come back to their owner a minute later.
"""

from collections.abc import Iterator, Sequence

from gateway.statements import State, Statement, Told
from gateway.tally import NO_LIMIT, REQUESTS, RUNNING, TOKENS, WINDOW_S, ZERO, Amounts, Tally, Window

HELLO_S = 1.0
"""A gateway with nothing to tell says so this often, so that others know how many they are."""
RESTATE_S = 5.0
"""Everything in use is told again this often; longer than that a lost message is not felt."""
SILENT_S = float(WINDOW_S)
"""Heard by nobody for so long, a gateway counts as gone; what it had admitted before has left the window by then."""
IDLE_S = 120
"""A subject that nobody used for so long is forgotten."""
MAX_TOLD = 100
"""Subjects in one message: to take it in holds up the event loop for a millisecond."""
MAX_TOLD_AT_ONCE = 400
"""Subjects in one tick; the others come with the next. Late news costs no exactness."""
MAX_PEERS = 64
"""Other gateways that are believed in; a full house of strangers would shrink every share to nothing."""
LOW_SHARE = 4
"""Less left than a quarter of what it uses: a gateway is given more before it has to refuse."""
_EVERYTHING = -(1 << 40)
"""Earlier than every second: all buckets are told."""


class _Peer:
    """Another gateway: how far we have heard it, and when that was."""

    def __init__(self) -> None:
        self.sequence = 0
        self.state: State = "serving"
        self.silent_s = 0.0
        self.clock_ahead = 0  # its clock minus ours, in seconds


class _Theirs(Window):
    """What one other gateway has used of one subject, on that gateway's clock."""

    def __init__(self) -> None:
        super().__init__()
        self.running = 0


class _Shared:
    """What is known of one subject beyond our own counts."""

    def __init__(self) -> None:
        self.theirs: dict[str, _Theirs] = {}
        self.given: dict[str, Amounts] = {}
        self.held: dict[str, Amounts] = {}
        self.short: dict[str, tuple[Amounts, Amounts]] = {}  # who asks for more: its spare rights, what it wanted


class SharedCounts:
    """The tallies of one gateway, and its part in the exchange. Not thread-safe; one event loop.

    Args:
        replica: this gateway's name, unlike any other's.

    Attributes:
        members: who shares the limits, this gateway included; sorted.
        tallies: by subject. To look into; `tally` makes one.
    """

    def __init__(self, replica: str) -> None:
        self.replica = replica
        self.members: tuple[str, ...] = (replica,)
        self._state: State = "serving"
        self.tallies: dict[str, Tally] = {}
        self._news: list[Tally] = []
        self._shared: dict[str, _Shared] = {}
        self._peers: dict[str, _Peer] = {}
        self._asking: set[str] = set()
        self._sequence = 0
        self._second = 0
        self._ticked_s: float | None = None
        self._restated_s = self._told_s = -RESTATE_S

    def tally(self, subject: str, limits: Amounts) -> Tally:
        """The subject's own counts here; a limit that changed holds from now on."""
        tally = self.tallies.get(subject)
        if tally is None:
            tally = self.tallies[subject] = Tally(subject, limits, self._news, self._second)
            self._make_room(tally)
        elif tally.limits != limits:
            tally.limits = limits
            self._forget_rights(subject)
            self._make_room(tally)
        return tally

    def windows(self, tally: Tally) -> Iterator[Window]:
        """Everything that is counted of a subject, ours first; others' seconds are turned into ours."""
        yield tally
        shared = self._shared.get(tally.subject)
        for replica, theirs in shared.theirs.items() if shared else ():
            ahead = self._peers[replica].clock_ahead if replica in self._peers else 0
            turned = Window()
            turned.replace(_EVERYTHING, ((second - ahead, r, t) for second, r, t in theirs.buckets))
            yield turned

    def leave(self) -> None:
        """This gateway admits nothing more, so its rights are the others'."""
        self._state = "leaving"
        self._count_members()

    def restate(self) -> None:
        """The others may have missed something: tell them everything with the next tick."""
        self._restated_s = -RESTATE_S

    def hear(self, statement: Statement, now_s: float) -> None:
        """Takes in what another gateway says; our own words, old ones and doubled ones change nothing."""
        if statement.replica == self.replica:
            return
        peer = self._peers.get(statement.replica)
        if peer is None:
            if statement.state == "gone" or len(self._peers) >= MAX_PEERS:
                return
            peer = self._peers[statement.replica] = _Peer()
            self.restate()
        if statement.sequence <= peer.sequence:
            return
        peer.sequence, peer.state, peer.silent_s = statement.sequence, statement.state, 0.0
        peer.clock_ahead = statement.second - int(now_s)
        self._count_members()
        for told in statement.told:
            self._hear_of(told, statement)
        if statement.state == "gone":
            self._nothing_runs_at(statement.replica)

    def tick(self, now_s: float, *, linked: bool) -> Sequence[Statement]:
        """To be called a few times a second; returns what the others shall be told now, often nothing.

        Args:
            now_s: monotonic.
            linked: whether others could be heard since the last tick; if not, their silence means nothing.
        """
        self._pass_time(now_s, linked=linked)
        self._give()
        if now_s - self._restated_s >= RESTATE_S:
            self._restated_s = now_s
            self._forget_idle()
            for tally in self.tallies.values():
                if tally.buckets or tally.running:
                    tally.changed(_EVERYTHING)
        changed: list[Tally] = []
        if self._peers:
            changed, self._news[:MAX_TOLD_AT_ONCE] = self._news[:MAX_TOLD_AT_ONCE], []
        if not changed and now_s - self._told_s < HELLO_S:
            return []
        self._told_s = now_s
        told = [self._told(tally) for tally in changed]
        return [self._statement(told[at : at + MAX_TOLD]) for at in range(0, max(1, len(told)), MAX_TOLD)]

    def last_words(self) -> Statement:
        """This process ends."""
        self._state = "gone"
        return self._statement(())

    # ---- what is known

    def _hear_of(self, told: Told, statement: Statement) -> None:
        tally = self.tallies.get(told.subject)
        if tally is None:
            if not (told.buckets or told.running or any(told.wanted) or self.replica in told.given):
                return  # forgotten here, and about to be there
            tally = self.tally(told.subject, told.limits)
        shared = self._shared.setdefault(told.subject, _Shared())
        theirs = shared.theirs.setdefault(statement.replica, _Theirs())
        theirs.replace(told.since, told.buckets)
        theirs.roll(statement.second)
        theirs.running = told.running
        if statement.members == self.members and told.limits == tally.limits:
            self._exchange_rights(tally, shared, told, statement.replica)
        self._make_room(tally)

    def _exchange_rights(self, tally: Tally, shared: _Shared, told: Told, replica: str) -> None:
        if replica not in self.members:
            return
        shared.held[replica] = told.given.get(self.replica, ZERO)
        given, arrived = shared.given.get(replica, ZERO), told.held.get(self.replica, ZERO)
        if arrived != given:
            # What it holds of us we have given, even if we forgot that; what it does not hold was lost on its way.
            shared.given[replica] = _greater(given, arrived)
            tally.changed(self._second)
        theirs = shared.theirs[replica]
        used = (theirs.requests, theirs.tokens, theirs.running)
        if any(told.wanted) or any(LOW_SHARE * told.spare[m] < used[m] for m in (REQUESTS, TOKENS, RUNNING)):
            shared.short[replica] = (told.spare, told.wanted)
            self._asking.add(tally.subject)

    def _count_members(self) -> None:
        """Who shares the limits; whenever that changes, every right that was given away is void, on all sides."""
        members = {replica for replica, peer in self._peers.items() if peer.state == "serving"}
        if self._state == "serving":
            members.add(self.replica)
        if self.members == (counted := tuple(sorted(members))):
            return
        self.members = counted
        for subject in self._shared:
            self._forget_rights(subject)
        for tally in self.tallies.values():
            self._make_room(tally)
        self.restate()

    def _pass_time(self, now_s: float, *, linked: bool) -> None:
        passed_s = now_s - self._ticked_s if self._ticked_s is not None else 0.0
        self._ticked_s = now_s
        if linked:
            for replica, peer in list(self._peers.items()):
                peer.silent_s += passed_s
                if peer.silent_s >= SILENT_S:
                    del self._peers[replica]
                    self._nothing_runs_at(replica)
            self._count_members()
        if int(now_s) == self._second:
            return
        self._second = int(now_s)
        for subject, shared in self._shared.items():
            tally = self.tallies[subject]
            tally.roll(self._second)
            for replica, theirs in shared.theirs.items():
                ahead = self._peers[replica].clock_ahead if replica in self._peers else 0
                theirs.roll(self._second + ahead)
            self._make_room(tally)

    def _nothing_runs_at(self, replica: str) -> None:
        for subject, shared in self._shared.items():
            if replica in shared.theirs:
                shared.theirs[replica].running = 0
                self._make_room(self.tallies[subject])

    def _forget_rights(self, subject: str) -> None:
        shared = self._shared.get(subject)
        if shared is not None:
            shared.given.clear()
            shared.held.clear()
            shared.short.clear()

    def _forget_idle(self) -> None:
        """Rights that went to and fro are forgotten with the subject: both sides have long stopped using it."""
        for subject, tally in list(self.tallies.items()):
            tally.roll(self._second)
            shared = self._shared.get(subject)
            if tally.buckets:
                tally.used_at = self._second
            elif (
                self._second - tally.used_at >= IDLE_S
                and not tally.running
                and not (shared and any(theirs.buckets or theirs.running for theirs in shared.theirs.values()))
            ):
                del self.tallies[subject]
                self._shared.pop(subject, None)
                self._asking.discard(subject)
        self._news[:] = [tally for tally in self._news if tally.subject in self.tallies]

    # ---- rights

    def _even_share(self, tally: Tally) -> Amounts:
        requests, tokens, running = tally.limits
        gateways = len(self.members) or 1
        return (-(-requests // gateways), -(-tokens // gateways), -(-running // gateways))

    def _rights(self, tally: Tally) -> Amounts:
        share = self._even_share(tally)
        shared = self._shared.get(tally.subject)
        if shared is None:
            return share
        requests, tokens, running = share
        for held in shared.held.values():
            requests, tokens, running = requests + held[0], tokens + held[1], running + held[2]
        for given in shared.given.values():
            requests, tokens, running = requests - given[0], tokens - given[1], running - given[2]
        return (requests, tokens, running)

    def _others(self, subject: str) -> Amounts:
        shared = self._shared.get(subject)
        if shared is None:
            return ZERO
        requests = tokens = running = 0
        for theirs in shared.theirs.values():
            requests, tokens, running = requests + theirs.requests, tokens + theirs.tokens, running + theirs.running
        return (requests, tokens, running)

    def _make_room(self, tally: Tally) -> None:
        tally.set_room(self._rights(tally), self._others(tally.subject))

    def _spare(self, tally: Tally) -> Amounts:
        rights = self._rights(tally)
        return (rights[0] - tally.requests, rights[1] - tally.tokens, rights[2] - tally.running)

    def _give(self) -> None:
        """Answers everybody who asked since the last tick, once each: who asks again, asks with a newer statement."""
        for subject in self._asking:
            tally, shared = self.tallies[subject], self._shared[subject]
            for replica, (spare, wanted) in shared.short.items():
                own, before = self._spare(tally), shared.given.get(replica, ZERO)
                gift = [
                    self._gift(own[m], spare[m], wanted[m]) if tally.limits[m] != NO_LIMIT else 0
                    for m in (REQUESTS, TOKENS, RUNNING)
                ]
                if any(gift):
                    shared.given[replica] = (before[0] + gift[0], before[1] + gift[1], before[2] + gift[2])
                    tally.changed(self._second)
            shared.short.clear()
            self._make_room(tally)
        self._asking.clear()

    def _gift(self, own: int, theirs: int, wanted: int) -> int:
        """So much that all have the same left, or more when a single request wants more; never more than is spare."""
        even = (own - theirs) // len(self.members)
        asked = -(-wanted // max(1, len(self.members) - 1))
        return max(0, min(own, max(even, asked)))

    # ---- what is said

    def _told(self, tally: Tally) -> Told:
        shared = self._shared.get(tally.subject)
        since = _EVERYTHING if tally.changed_since is None else tally.changed_since
        told = Told(
            subject=tally.subject,
            limits=tally.limits,
            since=since,
            buckets=tuple((b[0], b[1], b[2]) for b in tally.buckets if b[0] >= since),
            running=tally.running,
            spare=self._spare(tally),
            wanted=tally.wanted,
            given=dict(shared.given) if shared else {},
            held=dict(shared.held) if shared else {},
        )
        tally.told()
        return told

    def _statement(self, told: Sequence[Told]) -> Statement:
        self._sequence += 1
        return Statement(
            replica=self.replica,
            sequence=self._sequence,
            second=self._second,
            state=self._state,
            members=self.members,
            told=tuple(told),
        )


def _greater(one: Amounts, other: Amounts) -> Amounts:
    return (max(one[0], other[0]), max(one[1], other[1]), max(one[2], other[2]))
