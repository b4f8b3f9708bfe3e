"""What several routes do with a person: read and write their sealed names, judge a new password, end their sessions."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass

from domain.ids import PLATFORM, SessionId, UserId
from domain.session import SESSION, RevokeSession
from domain.user import UpdateProfile
from projections.projection import Scope
from projections.sessions import list_sessions
from projections.users import UserView
from web.errors import ApiError
from web.intent import Intent
from web.password_rules import weakness_of
from web.services import Services

MAX_USERNAME_LENGTH = 64


@dataclass(frozen=True)
class Names:
    """A person's names in the clear; empty once the person was forgotten."""

    username: str
    email: str
    first_name: str
    last_name: str

    @property
    def words(self) -> Sequence[str]:
        """What the person's own password must not be made of."""
        return astuple(self)


async def names_of(services: Services, user: UserView) -> Names:
    [names] = await all_names_of(services, [user])
    return names


async def all_names_of(services: Services, users: Sequence[UserView]) -> list[Names]:
    """Opened with one look-up."""
    sealed = [text for user in users for text in (user.username, user.email, user.first_name, user.last_name)]
    opened = iter(await services.vault.open_all(sealed))
    return [Names(*(next(opened) or "" for _ in range(4))) for _ in users]


def checked_username(text: str) -> str:
    """Raises ApiError: 400 invalid_username.

    Without "@": a username comes before an e-mail address when someone signs in, so it must never look like another's.
    """
    username = text.strip()
    if not (0 < len(username) <= MAX_USERNAME_LENGTH) or "@" in username or not username.isprintable():
        message = f'A username has 1 to {MAX_USERNAME_LENGTH} characters, and no "@" among them.'
        raise ApiError(400, "invalid_username", message)
    return username


def require_good_password(services: Services, password: str, names: Names) -> None:
    """Raises ApiError: 400 password_too_short, password_too_long, password_too_common."""
    weak = weakness_of(password, min_length=services.settings.min_password_length, own_words=names.words)
    if weak:
        raise ApiError(400, weak.code, weak.message)


async def profile_change(services: Services, user: UserView, before: Names, after: Names) -> UpdateProfile | None:
    """The command that makes `before` to `after`, what stays under its old seal; None when nothing differs."""
    if before == after:
        return None
    sealed = {
        field: await services.vault.seal(user.id, field, wanted) if wanted != had else getattr(user, field)
        for field, wanted, had in zip(Names.__dataclass_fields__, after.words, before.words, strict=True)
    }
    return UpdateProfile(
        **sealed,
        username_digest=services.vault.digest("username", after.username),
        email_digest=services.vault.digest("email", after.email),
    )


async def end_sessions(
    services: Services, intent: Intent, user_id: UserId, *, actor: str, keep: SessionId | None = None
) -> None:
    """Ends every session opened before this request's last event, and waits until their tokens open nothing."""
    scope = Scope(user=user_id)
    async with services.read("sessions", position=intent.position, scope=scope) as connection:
        sessions = await list_sessions(connection, user_id, now=services.clock())
    for session in sessions:
        if session.id != keep:
            await intent.send(SESSION, PLATFORM, session.id, RevokeSession(), actor=actor)
    async with services.read("sessions", position=intent.position, scope=scope):
        pass
