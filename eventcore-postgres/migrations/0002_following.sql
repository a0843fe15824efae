-- Version 2: what followers leave behind beside checkpoints, and snapshots that tell what they are of.

-- Events that a handler failed on for good, until somebody replays or discards them.
create table @schema@.dead_letters (
    handler text collate "C" not null,  -- name of the projection or process manager
    position bigint not null,
    event_id uuid not null,
    event_type text collate "C" not null,
    stream text collate "C" not null,
    attempts integer not null,
    errors text not null,               -- JSON array: the chain of errors, outermost first
    parked_at timestamptz not null,
    primary key (handler, position)
);

-- The versions of a read model. Tables of a version are the projector's own.
create table @schema@.read_models (
    name text collate "C" not null primary key,  -- of its projection
    in_force bigint,                    -- the version to be read; null until the first has caught up
    building bigint,                    -- the one that is built beside it, with the checkpoint `name@version`
    retired bigint,                     -- the one that is still to be removed
    requested boolean not null,         -- whether a rebuild was asked for and has not begun
    failure text,                       -- why the last rebuild was given up
    updated_at timestamptz not null
);

-- Held from the moment that a page saves its checkpoint until its transaction has ended. Who lost the answer to the commit
-- and asks where to go on waits for it: the commit may still be under way.
create function @schema@.lock_checkpoint(p_name text) returns void language plpgsql volatile as $$
begin
    perform pg_advisory_xact_lock(
        hashtextextended(p_name, '@schema@.positions'::regclass::oid::bigint + 2 * 4294967296));
end $$;

-- The checkpoint to go on from, when no transaction can save another one any more. The second statement has a snapshot that
-- is younger than the lock.
create function @schema@.resume_checkpoint(p_name text) returns setof @schema@.checkpoints language plpgsql volatile as $$
begin
    perform @schema@.lock_checkpoint(p_name);
    return query select * from @schema@.checkpoints c where c.name = p_name;
end $$;

-- As in version 1, and holds the lock of the checkpoint.
create or replace function @schema@.save_checkpoint(
    p_name text, p_position bigint, p_event_id uuid, p_filter text, p_lineage uuid, p_epoch bigint
) returns bigint language plpgsql volatile as $$
begin
    return @schema@.save_version(p_name, p_name, p_position, p_event_id, p_filter, p_lineage, p_epoch);
end $$;

-- Saves a checkpoint under a name of its own if the leader's epoch is in force, and returns the epoch in force.
create function @schema@.save_version(
    p_leader text, p_name text, p_position bigint, p_event_id uuid, p_filter text, p_lineage uuid, p_epoch bigint
) returns bigint language plpgsql volatile as $$
declare
    current bigint;
begin
    select l.epoch into current from @schema@.leases l where l.name = p_leader for key share;
    current := coalesce(current, 0);
    if current = p_epoch then
        perform @schema@.lock_checkpoint(p_name);
        insert into @schema@.checkpoints as c (name, position, event_id, filter, lineage, epoch, updated_at)
            values (p_name, p_position, p_event_id, p_filter, p_lineage, p_epoch, clock_timestamp())
            on conflict (name) do update set position = excluded.position, event_id = excluded.event_id,
                filter = excluded.filter, lineage = excluded.lineage, epoch = excluded.epoch, updated_at = excluded.updated_at;
    end if;
    return current;
end $$;

-- Nothing has ever been written to the table of version 1.
drop table @schema@.snapshots;
create table @schema@.snapshots (
    key text collate "C" not null primary key,
    schema uuid not null,               -- of the state's type; another one makes the snapshot useless
    versions text not null,             -- JSON: the version of each stream that is folded into it
    position bigint not null,           -- the highest one that is
    payload bytea not null,
    taken_at timestamptz not null
);
