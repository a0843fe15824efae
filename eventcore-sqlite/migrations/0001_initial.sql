-- Version 1. All names begin with eventcore_, since read models of exactly-once projections live in the same file.

create table eventcore_meta (
    key text primary key,
    value blob not null
) strict, without rowid;

create table eventcore_streams (
    id integer primary key,
    name text not null unique
) strict;

create table eventcore_event_types (
    id integer primary key,
    name text not null unique
) strict;

create table eventcore_events (
    position integer primary key,
    stream integer not null,        -- eventcore_streams.id
    version integer not null,       -- from 1
    type integer not null,          -- eventcore_event_types.id
    schema_version integer not null,
    content_type integer not null,  -- 0 application/json, 1 application/octet-stream
    id blob not null,               -- UUID of version 7, 16 bytes
    recorded_at integer not null,   -- microseconds since 1970
    metadata text,                  -- JSON; null if empty
    payload blob not null           -- as it was written
) strict;

-- Also tells a stream's version: there is no second place that could say otherwise.
create unique index eventcore_events_stream on eventcore_events (stream, version);
-- The position is part of every index, so this one lists the events of a type in order.
create index eventcore_events_type on eventcore_events (type);

create table eventcore_receipts (
    command_id text primary key,
    fingerprint blob not null,      -- UUID, 16 bytes
    recorded_at integer not null,   -- microseconds since 1970
    first_position integer,         -- null if the command appended nothing
    event_count integer not null    -- its events have consecutive positions
) strict, without rowid;

create table eventcore_checkpoints (
    name text primary key,
    epoch integer not null,         -- the leadership given out last
    position integer,               -- the cursor; null before the first event
    event_id blob,
    filter text,                    -- JSON; null while nothing is saved
    lineage blob,
    updated_at integer
) strict, without rowid;

-- Events are immutable and come in order. INSERT OR REPLACE fires no delete trigger, so inserts are checked beforehand:
-- the only position and the only version that can be inserted are the next ones.
create trigger eventcore_events_insert before insert on eventcore_events
when new.position is not (select coalesce(max(position), 0) + 1 from eventcore_events)
  or new.version is not (select coalesce(max(version), 0) + 1 from eventcore_events where stream = new.stream)
begin
    select raise(fail, 'eventcore: events are only appended, at the next position and version');
end;
create trigger eventcore_events_update before update on eventcore_events
begin
    select raise(abort, 'eventcore: events are immutable');
end;
create trigger eventcore_events_delete before delete on eventcore_events
begin
    select raise(abort, 'eventcore: events are immutable');
end;

-- The names that events refer to are immutable too.
create trigger eventcore_streams_insert before insert on eventcore_streams
when exists (select 1 from eventcore_streams where id = new.id or name = new.name)
begin
    select raise(abort, 'eventcore: stream names are immutable');
end;
create trigger eventcore_streams_update before update on eventcore_streams
begin
    select raise(abort, 'eventcore: stream names are immutable');
end;
create trigger eventcore_streams_delete before delete on eventcore_streams
begin
    select raise(abort, 'eventcore: stream names are immutable');
end;
create trigger eventcore_event_types_insert before insert on eventcore_event_types
when exists (select 1 from eventcore_event_types where id = new.id or name = new.name)
begin
    select raise(abort, 'eventcore: event type names are immutable');
end;
create trigger eventcore_event_types_update before update on eventcore_event_types
begin
    select raise(abort, 'eventcore: event type names are immutable');
end;
create trigger eventcore_event_types_delete before delete on eventcore_event_types
begin
    select raise(abort, 'eventcore: event type names are immutable');
end;

-- Receipts never change; deleting one is what pruning does.
create trigger eventcore_receipts_insert before insert on eventcore_receipts
when exists (select 1 from eventcore_receipts where command_id = new.command_id)
begin
    select raise(abort, 'eventcore: receipts are immutable');
end;
create trigger eventcore_receipts_update before update on eventcore_receipts
begin
    select raise(abort, 'eventcore: receipts are immutable');
end;

-- The identity of the log.
create trigger eventcore_meta_insert before insert on eventcore_meta
when exists (select 1 from eventcore_meta where key = new.key)
begin
    select raise(abort, 'eventcore: the identity of the log is immutable');
end;
create trigger eventcore_meta_update before update on eventcore_meta
begin
    select raise(abort, 'eventcore: the identity of the log is immutable');
end;
create trigger eventcore_meta_delete before delete on eventcore_meta
begin
    select raise(abort, 'eventcore: the identity of the log is immutable');
end;
