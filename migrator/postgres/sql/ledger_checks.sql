-- What earlier layouts of the ledger demanded otherwise: they knew fewer acts, and no allowed rules.
ALTER TABLE migrator.ledger
    DROP CONSTRAINT IF EXISTS ledger_act_check,
    ADD CONSTRAINT ledger_act_check CHECK (act IN ('up', 'baseline', 'rollback', 'repair',
                                                   'cut-over', 'swap-back')),
    DROP CONSTRAINT IF EXISTS ledger_check1,
    ADD CONSTRAINT ledger_check1 CHECK (undoes IS NULL AND allowed IS NULL AND act <> 'repair'
                                        OR reason <> '');
