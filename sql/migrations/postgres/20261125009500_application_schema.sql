-- The application's schema is where tallyroll_migration is, which the catalog says: nothing has to be read of a table before it is known
-- whose that is.
SET LOCAL lock_timeout = '10s';

DELETE FROM tallyroll.tallyroll_setting WHERE name = 'application_schema';
