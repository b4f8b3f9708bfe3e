"""A key's two spellings, against the server itself and against what nobody should take for a key."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from infra.events.nkeys import NkeyError, UserKey, new_seed, read_user_key


def test_a_seed_gives_the_same_key_each_time_and_says_what_it_is() -> None:
    seed = new_seed().decode()
    assert seed.startswith("SU")
    assert len(seed) == 58
    key = UserKey(seed)
    assert key.public.startswith("U")
    assert len(key.public) == 56
    assert UserKey(seed).public == key.public
    assert UserKey(new_seed().decode()).public != key.public


def test_the_signature_is_of_the_public_key() -> None:
    import base64

    key = UserKey(new_seed().decode())
    raw = base64.b32decode(key.public)[1:33]
    Ed25519PublicKey.from_public_bytes(raw).verify(base64.b64decode(key.sign("nonce")), b"nonce")


@pytest.mark.parametrize("text", ["", "hello", "SU" + "A" * 56, "U" * 56])
def test_what_is_no_seed_is_refused_without_being_shown(text: str, tmp_path: Path) -> None:
    path = tmp_path / "seed"
    path.write_text(text)
    with pytest.raises(NkeyError, match="INVENTIV_NATS_NKEY_FILE") as refusal:
        read_user_key(path)
    assert not text or text not in str(refusal.value)


def test_one_wrong_letter_is_noticed(tmp_path: Path) -> None:
    seed = new_seed().decode()
    wrong = seed[:10] + ("A" if seed[10] != "A" else "B") + seed[11:]
    with pytest.raises(NkeyError):
        UserKey(wrong)
