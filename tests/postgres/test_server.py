"""The server that the tests bring along."""

from pathlib import Path

from ledger import SessionLedger, Settings


def test_a_session_lives_on_either_ledger(ledger_url: str, tmp_path: Path) -> None:
    settings = Settings(root=tmp_path / "root", ledger=ledger_url)
    with SessionLedger.open(settings) as sessions:
        session = sessions.create(label="order 17")
        with sessions.upload(session.id) as upload:
            upload.open_file("a.txt")
            upload.write(b"bytes")
            upload.commit()
        assert sessions.touch(session.id).bytes == 5
        claimed = sessions.create()
        sessions.claim(claimed.id, into="spring")
        assert sessions.delete_session(session.id)
        assert not sessions.delete_session(session.id)
        assert sessions.sweep().failures == []
    with SessionLedger.open(settings) as sessions:  # the remover is done
        assert sessions.report().settled
