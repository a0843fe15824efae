-- Version 4: `append_many` takes arrays apart row by row (`select unnest(..)`), where `from unnest(..)` first writes down all
-- rows of each array and then of all together. Everything else is as it was.

-- Judges and appends a group of requests without command ids and without waiting for locks, as `append` does. If every
-- request can be appended, all of them are at once; else the group is left to `append`, which judges one after the other.
--
-- Arguments and results are those of `append`. Beside them, if everything before in the group is appended: `p_x_before` says
-- how many events the requests before append to the stream of an expectation, and `p_e_nth` the how manieth of its stream an
-- event is. `spots` and `actuals` are null if everything was appended.
create or replace function @schema@.append_many(
    p_x_ends integer[], p_e_ends integer[], p_streams text[], p_writes boolean[],
    p_x_stream integer[], p_x_expected bigint[], p_x_before bigint[],
    p_e_stream integer[], p_e_nth bigint[], p_e_name text[], p_e_id uuid[], p_e_type text[], p_e_schema integer[],
    p_e_json text[], p_e_bytes bytea[], p_e_metadata text[],
    out kinds smallint[], out spots integer[], out actuals bigint[], out versions bigint[], out positions bigint[],
    out recorded_at timestamptz
) language plpgsql volatile as $$
#variable_conflict use_column
declare
    log constant oid := '@schema@.positions'::regclass::oid;
    requests constant integer := cardinality(p_e_ends);
    all_free boolean;
    all_fit boolean := false;
    current bigint[];
    low bigint;
    stamp timestamptz;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'appending needs the isolation level read committed, this transaction has %',
            current_setting('transaction_isolation') using errcode = 'EC001';
    end if;
    if current_setting('synchronous_commit') = 'off' then
        perform set_config('synchronous_commit', 'on', true);
    end if;
    select bool_and(case when u.writes then pg_try_advisory_xact_lock(hashtextextended(u.name, log::bigint))
                         else pg_try_advisory_xact_lock_shared(hashtextextended(u.name, log::bigint)) end)
        into all_free from (select unnest(p_streams) as name, unnest(p_writes) as writes) u;
    if all_free then
        -- In a snapshot younger than the locks; by the index, whatever the planner knew about the table when it was young.
        select array(
            select coalesce((select ev.version from @schema@.events ev where ev.stream = u.name
                             order by ev.version desc limit 1), 0)
            from (select unnest(p_streams) as name) u
        ) into current;
        select bool_and(case when x.expected >= 0 then current[x.s] + x.before = x.expected
                             when x.expected = -2 then current[x.s] + x.before > 0
                             else true end)
            into all_fit
            from (select unnest(p_x_stream) as s, unnest(p_x_expected) as expected, unnest(p_x_before) as before) x;
    end if;
    if all_fit then
        kinds := array_fill(1::smallint, array[requests]);
        stamp := clock_timestamp();
        recorded_at := stamp;
        if cardinality(p_e_stream) = 0 then
            versions := '{}';
            positions := '{}';
            return;
        end if;
        -- Register below every position that will be drawn, and only then draw, as `append` does.
        low := coalesce(pg_sequence_last_value('@schema@.positions'::regclass), 0);
        if not pg_try_advisory_xact_lock_shared(log::bigint::bit(32)::integer, low::bit(32)::integer) then
            raise exception 'somebody holds an exclusive advisory lock in the key space of %', '@schema@.positions'
                using errcode = 'lock_not_available';
        end if;
        -- Both are made in the order in which the events came.
        select array_agg(current[u.s] + u.nth), array_agg(nextval('@schema@.positions'::regclass))
            into versions, positions from (select unnest(p_e_stream) as s, unnest(p_e_nth) as nth) u;
        insert into @schema@.events (position, stream, version, event_id, type, schema_version, content_type,
                                     payload_json, payload_bytes, metadata, recorded_at)
            select u.place, u.name, u.version, u.id, u.type, u.schema_version,
                   case when u.bytes is null then 'application/json' else 'application/octet-stream' end,
                   u.json::json, u.bytes, u.metadata::json, stamp
            from (select unnest(positions) as place, unnest(p_e_name) as name, unnest(versions) as version,
                         unnest(p_e_id) as id, unnest(p_e_type) as type, unnest(p_e_schema) as schema_version,
                         unnest(p_e_json) as json, unnest(p_e_bytes) as bytes, unnest(p_e_metadata) as metadata) u;
        return;
    end if;
    -- The locks that were free stay with this transaction, so they are free for it again.
    select a.kinds, a.spots, a.actuals, a.versions, a.positions, a.recorded_at
        into kinds, spots, actuals, versions, positions, recorded_at
        from @schema@.append(
            false, array_fill(null::text, array[requests]), array_fill(null::uuid, array[requests]), p_x_ends, p_e_ends,
            p_streams, p_writes, p_x_stream, p_x_expected, p_e_stream, p_e_name, p_e_id, p_e_type, p_e_schema,
            p_e_json, p_e_bytes, p_e_metadata, array_fill(null::text, array[cardinality(p_e_stream)]), false, 0) a;
end $$;
