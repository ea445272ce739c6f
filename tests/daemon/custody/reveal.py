"""What a share hides, told to a test: ``python reveal.py SOFTHSM2_CONF PIN_FILE RECOVERY_KEY < row``, run by itself.

Opens the row as an owner of token and PIN can, its share key as the owner of the recovery key can, and replays the
keygen for the sub-shares that the parties dealt. Prints all these secret numbers, by name, in hex.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from daemon.custody import rows
from daemon.custody.wire import ShareRow
from hsm import Pin, TokenSettings, open_token
from tests.daemon.custody.committee import recorded_set, seed_of
from tests.daemon.custody.node import SOFTHSM
from tests.interop import committee, gg18, ours
from tests.tss_cffi import protobuf, seeded

SECRETS: Final = {
    "share": ("Xi",),
    "Paillier lambda": ("PaillierSK", "LambdaN"),
    "Paillier phi": ("PaillierSK", "PhiN"),
    "Paillier p": ("PaillierSK", "P"),
    "Paillier q": ("PaillierSK", "Q"),
    "ring p": ("P",),
    "ring q": ("Q",),
    "alpha": ("Alpha",),
    "beta": ("Beta",),
}


def sub_shares(row: ShareRow, share: int) -> dict[str, int]:
    """What was dealt to whom, by seats; it adds up to the share."""
    seats = [member.seat for member in row.committee]
    parties = []
    for place, seat in enumerate(seats):
        with seeded.prepared(recorded_set(place, 1, len(seats))) as prepared:
            seeded.randomness(seed_of(seat))
            protocol = seeded.core.Protocol.of(row.protocol)
            parties.append(
                ours.OurSeat(seat, seeded.core.KeygenParty(protocol, seat, seats, row.threshold, prepared, None))
            )
    seeded.randomness(None)
    dealt = {}
    for sender, letter in committee.hold(parties):
        wire = protobuf.Wire.parse(letter.payload)
        if wire.type.endswith("KGRound2Message1"):
            assert letter.to is not None
            dealt[sender, letter.to] = wire.number(1)
    # Two points of our own polynomial, which is a line for two of three, give the one that we kept.
    one, two, three = seats
    dealt[one, one] = (2 * dealt[one, two] - dealt[one, three]) % gg18.Q
    assert (one, two, three, row.seat, row.threshold) == (1, 2, 3, 1, 2)
    assert sum(dealt[sender, one] for sender in seats) % gg18.Q == share
    return {f"sub-share of {sender} for {receiver}": value for (sender, receiver), value in dealt.items()}


def share_key(row: ShareRow, recovery_key: Path) -> int:
    """The key of this sealing, by the offline key."""
    assert row.sealed.recovery_wrapped is not None
    private = load_pem_private_key(recovery_key.read_bytes(), None)
    assert isinstance(private, RSAPrivateKey)
    assert row.sealed.recovery_wrapped[0] == 1
    digest = hashes.SHA1()  # noqa: S303  (what SoftHSM can do)
    return int.from_bytes(
        private.decrypt(row.sealed.recovery_wrapped[1:], padding.OAEP(padding.MGF1(digest), digest, None))
    )


def main(conf: str, pin: str, recovery_key: str) -> None:
    os.environ["SOFTHSM2_CONF"] = conf
    row = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=ShareRow)
    settings = TokenSettings(module_path=SOFTHSM, token_label="tssd")  # noqa: S106  (a label)
    seeded.core.open_arena(seeded.ARENA)
    with open_token(settings, Pin.from_file(Path(pin)), None) as token:
        memory = token.open(rows.blob_of(row.sealed), rows.share_header(row), seeded.core.SecretBytes)
    assert isinstance(memory, seeded.core.SecretBytes)
    with memory, seeded.core.Share(memory) as share:
        saved = seeded.export(share)
    found = {"share key": f"{share_key(row, Path(recovery_key)):x}"}
    for name, number in sub_shares(row, int(saved["Xi"])).items():
        found[name] = f"{number:x}"
    for name, path in SECRETS.items():
        value: Any = saved
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
        if value is not None:
            found[name] = f"{int(value):x}"
    print(json.dumps(found))  # noqa: T201  (its output)


if __name__ == "__main__":
    main(*sys.argv[1:])
