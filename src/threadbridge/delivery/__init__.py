"""How anything leaves, and what became of it: `outbox` says it, `fanout` addresses it, `send` carries it, `retry`
judges the answer. The rows themselves are in `storage/ledger`."""
