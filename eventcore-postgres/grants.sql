-- What a role needs to use a log, with the variables of psql `role` and `schema`. It cannot change the schema, nor events.
-- Migrations are made by the owner.
grant usage on schema :"schema" to :"role";
grant select on :"schema".migrations, :"schema".log to :"role";
grant select, insert on :"schema".events to :"role";
grant usage, select on sequence :"schema".positions to :"role";
grant select, insert, delete on :"schema".receipts to :"role";
grant select, insert, update on :"schema".leases to :"role";
grant select, insert, update, delete
    on :"schema".checkpoints, :"schema".dead_letters, :"schema".read_models, :"schema".snapshots to :"role";
grant execute on all functions in schema :"schema" to :"role";
