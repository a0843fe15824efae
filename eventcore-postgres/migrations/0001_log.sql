-- The log, and what commands and followers keep beside it. `@schema@` stands for the schema's name.

-- Which log this is. One row.
create table @schema@.log (
    only_row boolean primary key default true check (only_row),
    lineage uuid not null,
    created_at timestamptz not null default clock_timestamp()
);
insert into @schema@.log (lineage) values (gen_random_uuid());

-- Positions. The order of the log stands on these settings; they are checked whenever a store connects.
create sequence @schema@.positions as bigint start 1 increment 1 minvalue 1 cache 1 no cycle;

create table @schema@.events (
    position bigint not null primary key,
    stream text collate "C" not null,
    version bigint not null check (version > 0),
    event_id uuid not null,
    type text collate "C" not null,
    schema_version integer not null check (schema_version > 0),
    content_type text not null,
    payload_json json,
    payload_bytes bytea,
    -- Null where there is none.
    metadata json,
    recorded_at timestamptz not null,
    command_id text collate "C",
    -- A backstop that never fires: versions are judged under locks.
    constraint events_stream_version unique (stream, version),
    constraint events_one_payload check (num_nonnulls(payload_json, payload_bytes) = 1)
) with (
    -- Rows are only ever inserted: freeze them and set the visibility map soon, rather than all at once much later.
    autovacuum_vacuum_insert_threshold = 50000,
    autovacuum_vacuum_insert_scale_factor = 0.02,
    autovacuum_analyze_scale_factor = 0.02,
    autovacuum_freeze_min_age = 0
);
create index events_type_position on @schema@.events (type, position);

create function @schema@.refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% of %.% is refused: stored events never change', tg_op, tg_table_schema, tg_table_name
        using errcode = 'restrict_violation';
end $$;
create trigger events_immutable before update or delete or truncate on @schema@.events
    for each statement execute function @schema@.refuse_change();
alter table @schema@.events enable always trigger events_immutable;

-- The lasting proof that a command was executed, and where its events went.
create table @schema@.receipts (
    command_id text collate "C" not null primary key,
    fingerprint uuid not null,
    recorded_at timestamptz not null,
    positions bigint[] not null
);
create index receipts_recorded_at on @schema@.receipts (recorded_at);

-- Who leads a projection. The epoch of a name never goes back; the row stays when nobody leads.
create table @schema@.leases (
    name text collate "C" not null primary key,
    owner uuid,
    epoch bigint not null check (epoch > 0),
    beat bigint not null default 0
) with (fillfactor = 50);

-- How far a follower has come.
create table @schema@.checkpoints (
    name text collate "C" not null primary key,
    position bigint,
    event_id uuid,
    filter text not null,
    lineage uuid not null,
    epoch bigint not null,
    updated_at timestamptz not null,
    constraint checkpoints_cursor check ((position is null) = (event_id is null))
) with (fillfactor = 50);

create table @schema@.snapshots (
    name text collate "C" not null primary key,
    position bigint not null,
    schema_version integer not null,
    payload bytea not null,
    taken_at timestamptz not null
);

-- Judges and appends a group of requests.
--
-- The statements are sequential on purpose: each has a snapshot of its own, and what is judged is read in a snapshot that
-- is younger than the locks. `p_*` arrays: one entry per request (commands, ends), per distinct stream (streams, writes),
-- per expectation (x), per event (e). Ends are cumulative counts. An expected version of -1 is any, -2 is "exists".
-- Indexes count from 1. A call for one event is the common one: loops of plain expressions are far cheaper than queries
-- over arrays there, which only pay for long ones.
--
-- Per request, `kinds` is 1 appended, 2 replayed, 3 conflict (`spots`: index of the stream, `actuals`: its version),
-- 4 command id reused, 5 busy (`spots`: index of the stream whose lock is taken; null: the command's is). Per event
-- `versions` and `positions`, null where it was not appended. The `r_` columns are the events of receipts replayed, and
-- `r_times` when these were recorded, per request.
create function @schema@.append(
    p_has_commands boolean, p_commands text[], p_fingerprints uuid[], p_x_ends integer[], p_e_ends integer[],
    p_streams text[], p_writes boolean[],
    p_x_stream integer[], p_x_expected bigint[],
    p_e_stream integer[], p_e_name text[], p_e_id uuid[], p_e_type text[], p_e_schema integer[],
    p_e_json text[], p_e_bytes bytea[], p_e_metadata text[], p_e_command text[],
    p_blocking boolean, p_lock_timeout_ms integer,
    out kinds smallint[], out spots integer[], out actuals bigint[], out versions bigint[], out positions bigint[],
    out recorded_at timestamptz,
    out r_request integer[], out r_stream text[], out r_version bigint[], out r_position bigint[], out r_times timestamptz[]
) language plpgsql volatile as $$
#variable_conflict use_column
declare
    log constant oid := '@schema@.positions'::regclass::oid;
    -- From here on a query over arrays is cheaper than a loop of queries.
    many constant integer := 5;
    requests constant integer := cardinality(p_e_ends);
    events constant integer := cardinality(p_e_stream);
    key record;
    name text;
    old_timeout text;
    free boolean;
    stream_free boolean[];
    command_free boolean[];
    all_free boolean := true;
    known uuid[];
    current bigint[];
    found_version bigint;
    firsts integer[];
    lasts integer[];
    slots integer[];
    accepted integer := 0;
    replays boolean := false;
    verdict smallint;
    s integer;
    x integer := 1;
    e integer := 1;
    low bigint;
    drawn bigint[];
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'appending needs the isolation level read committed, this transaction has %',
            current_setting('transaction_isolation') using errcode = 'EC001';
    end if;
    if current_setting('synchronous_commit') = 'off' then
        perform set_config('synchronous_commit', 'on', true);
    end if;

    -- Locks. Who waits for them takes them in one order everywhere; a group that only asks whether they are free needs none.
    if p_blocking then
        old_timeout := current_setting('lock_timeout');
        perform set_config('lock_timeout', p_lock_timeout_ms::text, true);
        for key in
            select k.id, bool_or(k.writes) as writes from (
                select hashtextextended(u.name, log::bigint) as id, u.writes
                    from unnest(p_streams, p_writes) as u(name, writes)
                union all
                select hashtextextended(u.name, log::bigint + 4294967296), true
                    from unnest(p_commands) as u(name) where u.name is not null
            ) k group by k.id order by k.id
        loop
            if key.writes then
                perform pg_advisory_xact_lock(key.id);
            else
                perform pg_advisory_xact_lock_shared(key.id);
            end if;
        end loop;
        perform set_config('lock_timeout', old_timeout, true);
    else
        s := 0;
        foreach name in array p_streams loop
            s := s + 1;
            if p_writes[s] then
                free := pg_try_advisory_xact_lock(hashtextextended(name, log::bigint));
            else
                free := pg_try_advisory_xact_lock_shared(hashtextextended(name, log::bigint));
            end if;
            stream_free[s] := free;
            all_free := all_free and free;
        end loop;
        if p_has_commands then
            s := 0;
            foreach name in array p_commands loop
                s := s + 1;
                free := true;
                if name is not null then
                    free := pg_try_advisory_xact_lock(hashtextextended(name, log::bigint + 4294967296));
                end if;
                command_free[s] := free;
                all_free := all_free and free;
            end loop;
        end if;
    end if;

    -- What is there, in snapshots younger than the locks. The lateral form with its limit reads by the index, whatever the
    -- planner knew about the table when it was young.
    if p_has_commands then
        select array_agg(r.fingerprint order by u.i) into known
            from unnest(p_commands) with ordinality as u(id, i)
            left join lateral (select x.fingerprint from @schema@.receipts x where x.command_id = u.id limit 1) r on true;
    end if;
    if cardinality(p_streams) < many then
        s := 0;
        foreach name in array p_streams loop
            s := s + 1;
            select ev.version into found_version from @schema@.events ev
                where ev.stream = name order by ev.version desc limit 1;
            current[s] := coalesce(found_version, 0);
        end loop;
    else
        select array_agg(coalesce(v.version, 0) order by u.i) into current
            from unnest(p_streams) with ordinality as u(name, i)
            left join lateral (
                select ev.version from @schema@.events ev where ev.stream = u.name order by ev.version desc limit 1
            ) v on true;
    end if;

    -- Each request in order; a later one sees what an earlier one appends.
    spots := array_fill(null::integer, array[requests]);
    actuals := array_fill(null::bigint, array[requests]);
    firsts := array_fill(1, array[requests]);
    lasts := array_fill(0, array[requests]);
    versions := array_fill(null::bigint, array[events]);
    positions := versions;
    slots := array_fill(null::integer, array[events]);
    for r in 1 .. requests loop
        verdict := 1;
        if not all_free then
            if p_has_commands and not command_free[r] then
                verdict := 5;
            end if;
            for i in x .. p_x_ends[r] loop
                if not stream_free[p_x_stream[i]] then
                    verdict := 5;
                    spots[r] := p_x_stream[i];
                    exit;
                end if;
            end loop;
        end if;
        if verdict = 1 and p_has_commands and known[r] is not null then
            if known[r] = p_fingerprints[r] then
                verdict := 2;
                replays := true;
            else
                verdict := 4;
            end if;
        end if;
        if verdict = 1 then
            for i in x .. p_x_ends[r] loop
                s := p_x_stream[i];
                if (p_x_expected[i] >= 0 and current[s] <> p_x_expected[i]) or (p_x_expected[i] = -2 and current[s] = 0) then
                    verdict := 3;
                    spots[r] := s;
                    actuals[r] := current[s];
                    exit;
                end if;
            end loop;
        end if;
        if verdict = 1 then
            firsts[r] := accepted + 1;
            for i in e .. p_e_ends[r] loop
                s := p_e_stream[i];
                current[s] := current[s] + 1;
                accepted := accepted + 1;
                versions[i] := current[s];
                slots[i] := accepted;
            end loop;
            lasts[r] := accepted;
        end if;
        kinds[r] := verdict;
        x := p_x_ends[r] + 1;
        e := p_e_ends[r] + 1;
    end loop;

    recorded_at := clock_timestamp();
    if accepted > 0 then
        -- Register below every position that will be drawn, and only then draw. Readers stay below whoever is registered.
        low := coalesce(pg_sequence_last_value('@schema@.positions'::regclass), 0);
        if not pg_try_advisory_xact_lock_shared(log::bigint::bit(32)::integer, low::bit(32)::integer) then
            raise exception 'somebody holds an exclusive advisory lock in the key space of %', '@schema@.positions'
                using errcode = 'lock_not_available';
        end if;
        for i in 1 .. accepted loop
            drawn[i] := nextval('@schema@.positions'::regclass);
        end loop;
        for i in 1 .. events loop
            if slots[i] is not null then
                positions[i] := drawn[slots[i]];
            end if;
        end loop;
        if events < many then
            for i in 1 .. events loop
                if slots[i] is not null then
                    insert into @schema@.events (position, stream, version, event_id, type, schema_version, content_type,
                                                 payload_json, payload_bytes, metadata, recorded_at, command_id)
                        values (positions[i], p_e_name[i], versions[i], p_e_id[i], p_e_type[i], p_e_schema[i],
                                case when p_e_bytes[i] is null then 'application/json' else 'application/octet-stream' end,
                                p_e_json[i]::json, p_e_bytes[i], p_e_metadata[i]::json, recorded_at, p_e_command[i]);
                end if;
            end loop;
        else
            insert into @schema@.events (position, stream, version, event_id, type, schema_version, content_type,
                                         payload_json, payload_bytes, metadata, recorded_at, command_id)
                select u.place, u.name, u.version, u.id, u.type, u.schema_version,
                       case when u.bytes is null then 'application/json' else 'application/octet-stream' end,
                       u.json::json, u.bytes, u.metadata::json, recorded_at, u.command
                from unnest(positions, p_e_name, versions, p_e_id, p_e_type, p_e_schema, p_e_json, p_e_bytes, p_e_metadata,
                            p_e_command) as u(place, name, version, id, type, schema_version, json, bytes, metadata, command)
                where u.place is not null
                order by u.place;
        end if;
    end if;
    if p_has_commands then
        insert into @schema@.receipts (command_id, fingerprint, recorded_at, positions)
            select u.id, u.fingerprint, recorded_at, coalesce(drawn[u.first:u.last], '{}')
            from unnest(p_commands, p_fingerprints, kinds, firsts, lasts) as u(id, fingerprint, kind, first, last)
            where u.id is not null and u.kind = 1;
    end if;
    if replays then
        select array_agg(rc.recorded_at order by u.r) into r_times
            from unnest(p_commands) with ordinality as u(id, r)
            left join lateral (select x.recorded_at from @schema@.receipts x where x.command_id = u.id limit 1) rc on true;
        select array_agg(u.r::integer order by u.r, p.i), array_agg(ev.stream order by u.r, p.i),
               array_agg(ev.version order by u.r, p.i), array_agg(ev.position order by u.r, p.i)
            into r_request, r_stream, r_version, r_position
            from unnest(p_commands, kinds) with ordinality as u(id, kind, r)
            cross join lateral (select y.positions from @schema@.receipts y where y.command_id = u.id limit 1) rc
            cross join lateral unnest(rc.positions) with ordinality as p(at, i)
            cross join lateral (select y.* from @schema@.events y where y.position = p.at limit 1) ev
            where u.kind = 2;
    end if;
end $$;

-- How far readers may look, in three statements of one round trip; each has a snapshot of its own, so it has to be volatile
-- and run under read committed.
--
-- `head` is the last position drawn, `bound` the highest position below which nobody can still commit, `position` and
-- `event_id` the last visible event up to there. `known_id` is the event that stands at `p_known` now.
create function @schema@.horizon(
    p_known bigint, out head bigint, out bound bigint, out "position" bigint, out event_id uuid, out known_id uuid
) language plpgsql volatile as $$
#variable_conflict use_column
declare
    log constant oid := '@schema@.positions'::regclass::oid;
    lowest bigint;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'the horizon needs the isolation level read committed, this transaction has %',
            current_setting('transaction_isolation') using errcode = 'EC001';
    end if;
    if pg_is_in_recovery() then
        raise exception 'this server is a standby, which cannot see the locks of appenders' using errcode = 'EC002';
    end if;
    -- 1. The last position drawn. Who registers after this draws above it.
    select case when is_called then last_value else last_value - 1 end into head from @schema@.positions;
    -- 2. Who is registered, and below what. The key holds the low 32 bits; the rest follows from the head.
    select min(head + (l.objid::bigint - head)::bit(32)::integer) into lowest from pg_catalog.pg_locks l
        where l.locktype = 'advisory' and l.classid = log and l.objsubid = 2
          and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database());
    bound := least(head, lowest);
    -- 3. Who is gone by now is visible: a commit becomes visible before its locks are released.
    select ev.position, ev.event_id into position, event_id
        from @schema@.events ev where ev.position <= bound order by ev.position desc limit 1;
    if p_known is not null then
        select ev.event_id into known_id from @schema@.events ev where ev.position = p_known;
    end if;
end $$;

-- The highest version of a stream at or below a position: versions are dense and rise with positions, so it is bisected.
create function @schema@.version_at(p_stream text, p_position bigint) returns bigint language plpgsql stable as $$
declare
    lo bigint := 0;
    hi bigint;
    mid bigint;
    at bigint;
begin
    select ev.version, ev.position into hi, at from @schema@.events ev
        where ev.stream = p_stream order by ev.version desc limit 1;
    if hi is null then
        return 0;
    end if;
    if at <= p_position then
        return hi;
    end if;
    while lo + 1 < hi loop
        mid := (lo + hi) / 2;
        select ev.position into at from @schema@.events ev where ev.stream = p_stream and ev.version = mid;
        if at <= p_position then
            lo := mid;
        else
            hi := mid;
        end if;
    end loop;
    return lo;
end $$;

-- Begins a page: the epoch in force, held until the transaction ends. A leader that stops in the middle loses the
-- transaction, and with it the lock, after the idle time. The share lock lets the leader's own beats pass; who takes over
-- needs the full lock.
create function @schema@.begin_page(p_name text, p_idle_ms integer) returns bigint language plpgsql volatile as $$
declare
    current bigint;
begin
    perform set_config('idle_in_transaction_session_timeout', p_idle_ms::text, true);
    select l.epoch into current from @schema@.leases l where l.name = p_name for key share;
    return coalesce(current, 0);
end $$;

-- Saves a checkpoint if the epoch is in force, and returns the epoch in force.
create function @schema@.save_checkpoint(
    p_name text, p_position bigint, p_event_id uuid, p_filter text, p_lineage uuid, p_epoch bigint
) returns bigint language plpgsql volatile as $$
declare
    current bigint;
begin
    select l.epoch into current from @schema@.leases l where l.name = p_name for key share;
    current := coalesce(current, 0);
    if current = p_epoch then
        insert into @schema@.checkpoints as c (name, position, event_id, filter, lineage, epoch, updated_at)
            values (p_name, p_position, p_event_id, p_filter, p_lineage, p_epoch, clock_timestamp())
            on conflict (name) do update set position = excluded.position, event_id = excluded.event_id,
                filter = excluded.filter, lineage = excluded.lineage, epoch = excluded.epoch, updated_at = excluded.updated_at;
    end if;
    return current;
end $$;

-- Forgets a checkpoint if the epoch is in force, and returns the epoch in force.
create function @schema@.reset_checkpoint(p_name text, p_epoch bigint) returns bigint language plpgsql volatile as $$
declare
    current bigint;
begin
    select l.epoch into current from @schema@.leases l where l.name = p_name for key share;
    current := coalesce(current, 0);
    if current = p_epoch then
        delete from @schema@.checkpoints c where c.name = p_name;
    end if;
    return current;
end $$;

-- Takes the lease of a projection, and returns its new epoch; null if somebody else has it or was faster. What the caller saw
-- (`p_epoch` 0 for no row) has to stand still: the compare is what makes one of several candidates the winner.
create function @schema@.take_lease(p_name text, p_owner uuid, p_epoch bigint, p_beat bigint) returns bigint language plpgsql volatile as $$
declare
    taken bigint;
begin
    if p_epoch = 0 then
        insert into @schema@.leases (name, owner, epoch) values (p_name, p_owner, 1) on conflict (name) do nothing
            returning epoch into taken;
        return taken;
    end if;
    -- A row that is locked belongs to a leader in the middle of a page.
    perform from @schema@.leases l where l.name = p_name and l.epoch = p_epoch and (l.owner is null or l.beat = p_beat)
        for update skip locked;
    if not found then
        return null;
    end if;
    update @schema@.leases l set owner = p_owner, epoch = l.epoch + 1, beat = 0
        where l.name = p_name and l.epoch = p_epoch returning l.epoch into taken;
    return taken;
end $$;
