"""How each provider wants to be called: mechanism numbers, who makes the IV, template quirks.

The sealed bytes are the same whatever the profile: AES-256 key wrap of RFC 3394 and AES-256-GCM. A profile is a claim;
the self-test that `open_token` makes and `hsm doctor` prove it on the token at hand.
"""

from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from hsm.errors import NotConforming


class IvSource(IntEnum):
    """Who makes the IV of a GCM encryption; the numbers of _direct.cdef.h."""

    CALLER = 0
    """We do. Outside its FIPS mode Luna asks for it; SoftHSM would use a zero buffer as the IV and say nothing."""
    BUFFER = 1
    """The token, into the parameter's buffer, 12 bytes."""
    HEAD = 2
    """The token, 12 bytes before the ciphertext."""
    TAIL = 3
    """The token, 16 bytes behind the tag."""


class Oaep(IntEnum):
    """The hash of OAEP and of its MGF1, by its CKM number."""

    SHA1 = 0x220
    SHA256 = 0x250

    @property
    def mgf(self) -> int:
        """CKG_MGF1_SHA1 or CKG_MGF1_SHA256."""
        return {Oaep.SHA1: 1, Oaep.SHA256: 2}[self]

    @property
    def algorithm(self) -> str:
        """As a row names it."""
        return f"RSA-OAEP-{self.name}"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One way of being called."""

    name: str
    wrap: int = 0x2109
    """CKM number of RFC 3394 with the default IV and no parameter."""
    gcm: int = 0x1087
    iv_source: IvSource = IvSource.CALLER
    oaep: Oaep = Oaep.SHA256
    value_len_on_unwrap: bool = False
    """CKA_VALUE_LEN in the template of an AES unwrap: Luna before firmware 7.9.3 wants it, others refuse it."""
    unwrap_template: bool = True
    """The token keeps and enforces CKA_UNWRAP_TEMPLATE. Without it, PIN and store together give share keys away."""
    allowed_mechanisms: bool = True
    """The token takes CKA_ALLOWED_MECHANISMS."""
    tells_local: bool = True
    """A generated key says CKA_LOCAL."""
    in_process: bool = False
    """The module computes in our own process, under locks of its own: two threads get less done than one."""
    copyable: bool = False
    """The token knows CKA_COPYABLE, and so would copy a key that does not forbid it."""
    wrap_with_trusted: bool = False
    """New share keys ask for CKA_WRAP_WITH_TRUSTED once the crypto officer has marked the KEK as trusted, unless there
    is a recovery key: that is a session object, which nobody can mark."""


PROFILES: Final = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile(name="softhsm", oaep=Oaep.SHA1, in_process=True, copyable=True),  # no other hash, up to 2.7
            Profile(name="nss", unwrap_template=False, allowed_mechanisms=False, tells_local=False, in_process=True),
            # The vendor's GCM puts the IV before the ciphertext; the standard number would write it back.
            Profile(
                name="cloudhsm",
                wrap=0x80002109,
                gcm=0x80001087,
                iv_source=IvSource.HEAD,
                allowed_mechanisms=False,
                wrap_with_trusted=True,
            ),
            Profile(
                name="cloudhsm-standard-gcm",
                wrap=0x80002109,
                iv_source=IvSource.BUFFER,
                allowed_mechanisms=False,
                wrap_with_trusted=True,
            ),
            Profile(name="luna", wrap=0x80000170, value_len_on_unwrap=True, allowed_mechanisms=False),
            Profile(
                name="luna-fips",
                wrap=0x80000170,
                iv_source=IvSource.TAIL,
                value_len_on_unwrap=True,
                allowed_mechanisms=False,
            ),
            Profile(name="nshield"),
        )
    }
)


def profile_named(name: str) -> Profile:
    """The profile of this name.

    Raises:
        NotConforming: There is none; the message lists those there are.
    """
    try:
        return PROFILES[name]
    except KeyError:
        raise NotConforming(f"no provider profile {name!r}; there are: {', '.join(PROFILES)}") from None
