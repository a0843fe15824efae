-- Version 2: what followers leave behind beside checkpoints, and snapshots of command state.

-- Events that a handler failed on for good, until somebody replays or discards them.
create table eventcore_dead_letters (
    handler text not null,          -- name of the projection or process manager
    position integer not null,
    event_id blob not null,         -- UUID of version 7, 16 bytes
    event_type text not null,
    stream text not null,
    attempts integer not null,
    errors text not null,           -- JSON array: the chain of errors, outermost first
    parked_at integer not null,     -- microseconds since 1970
    primary key (handler, position)
) strict, without rowid;

-- The versions of a read model. Tables of a version are the projector's own.
create table eventcore_read_models (
    name text primary key,          -- of its projection
    in_force integer,               -- the version to be read; null until the first has caught up
    building integer,               -- the one that is built beside it, with the checkpoint `name@version`
    retired integer,                -- the one that is still to be removed
    requested integer not null,     -- 1 if a rebuild was asked for and has not begun
    failure text,                   -- why the last rebuild was given up
    updated_at integer not null     -- microseconds since 1970
) strict, without rowid;

create table eventcore_snapshots (
    key text primary key,
    schema blob not null,           -- of the state's type, 16 bytes; another one makes the snapshot useless
    versions text not null,         -- JSON: the version of each stream that is folded into it
    position integer not null,      -- the highest one that is
    payload blob not null,
    taken_at integer not null       -- microseconds since 1970
) strict;
