-- Every entry has its hash, every commons its tree.
ALTER TABLE gesell.entry ALTER COLUMN leaf SET NOT NULL;
ALTER TABLE gesell.commons ALTER COLUMN tree SET NOT NULL;
