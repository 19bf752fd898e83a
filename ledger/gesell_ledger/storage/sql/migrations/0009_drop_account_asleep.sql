-- The sweeper looks the accounts through by their numbers. The index made the first touch of an account in a tick write
-- to all indexes of the row, and was taken by the planner for a way to all accounts of a commons.
DROP INDEX gesell.account_asleep;
