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

-- Which version of a read model is the one to be read.
create table @schema@.read_models (
    name text collate "C" not null primary key,
    version bigint not null,
    updated_at timestamptz not null
);

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
