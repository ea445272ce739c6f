from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.session import SessionStatus, Step
from daemon.share import ShareStatus
from daemon.values import PartyId, PublicKey
from tests.daemon.ceremonies.committee import NAMES, Template, open_committee

if TYPE_CHECKING:
    from pathlib import Path


async def test_three_daemons_make_a_key_and_each_pair_signs(template: Template, tmp_path: Path) -> None:
    async with open_committee(template, tmp_path) as committee:
        session = await committee.keygen()
        made = await committee.ended(session)
        assert {end.status for end in made.values()} == {SessionStatus.COMPLETED}
        (key,) = {str(end.public_key) for end in made.values()}
        await committee.coordinator.outcome(str(session))
        sessions = [session]
        for number, pair in enumerate((NAMES[:2], NAMES[1:], (NAMES[0], NAMES[2]))):
            message = bytes([number]) * 32
            sessions.append(await committee.sign(key, pair, message))
            signed = await committee.ended(sessions[-1], pair)
            (signature,) = {end.signature for end in signed.values()}
            (hash_,) = {end.message_hash for end in signed.values()}
            assert signature is not None
            assert hash_ is not None
            assert hash_.octets == message
            assert PublicKey.parse(key).verify(hash_, signature)
        for name, desk in committee.desks.items():
            share = await desk.store.active_share(PartyId(name), PublicKey.parse(key))
            assert share.status is ShareStatus.ACTIVE
            assert share.last_used_at is not None
            assert (await desk.verify_audit()).whole
            confirmed = await desk.confirmations(session)
            assert confirmed.confirmed == tuple(sorted(NAMES))
            assert confirmed.missing == ()
            for kind, of_kind in (("keygen", sessions[:1]), ("sign", sessions[1:])):
                journals = [await desk.store.journal(each, PartyId(name)) for each in of_kind]
                rounds = sum(entry.round > 0 for journal in journals for entry in journal)
                timed = desk.metrics.registry.get_sample_value("tssd_round_seconds_count", {"type": kind})
                assert rounds == timed, kind
            steps = [entry.step for entry in await desk.store.journal(session, PartyId(name))]
            assert steps[0] is Step.OFFERED
            assert steps.index(Step.PENDING) < steps.index(Step.CONFIRMED) < steps.index(Step.COMPLETED)
