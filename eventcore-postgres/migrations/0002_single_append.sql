
-- Appends one event to one stream, without a command id and without waiting for locks: what the function `append` does for
-- such a request, at half the cost. The common one where there are many processes with few callers each.
--
-- `kind`: 1 appended, 3 conflict (`version` is the actual one), 5 busy.
create function @schema@.append_one(
    p_stream text, p_expected bigint, p_id uuid, p_type text, p_schema integer, p_json text, p_bytes bytea, p_metadata text,
    out kind smallint, out "version" bigint, out "position" bigint, out recorded_at timestamptz
) language plpgsql volatile as $$
#variable_conflict use_variable
declare
    log constant oid := '@schema@.positions'::regclass::oid;
    low bigint;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'appending needs the isolation level read committed, this transaction has %',
            current_setting('transaction_isolation') using errcode = 'EC001';
    end if;
    if current_setting('synchronous_commit') = 'off' then
        perform set_config('synchronous_commit', 'on', true);
    end if;
    if not pg_try_advisory_xact_lock(hashtextextended(p_stream, log::bigint)) then
        kind := 5;
        return;
    end if;
    -- In a snapshot younger than the lock.
    version := coalesce(
        (select ev.version from @schema@.events ev where ev.stream = p_stream order by ev.version desc limit 1), 0);
    if (p_expected >= 0 and version <> p_expected) or (p_expected = -2 and version = 0) then
        kind := 3;
        return;
    end if;
    version := version + 1;
    recorded_at := clock_timestamp();
    -- Register below the position that will be drawn, and only then draw, as `append` does.
    low := coalesce(pg_sequence_last_value('@schema@.positions'::regclass), 0);
    if not pg_try_advisory_xact_lock_shared(log::bigint::bit(32)::integer, low::bit(32)::integer) then
        raise exception 'somebody holds an exclusive advisory lock in the key space of %', '@schema@.positions'
            using errcode = 'lock_not_available';
    end if;
    position := nextval('@schema@.positions'::regclass);
    insert into @schema@.events (position, stream, version, event_id, type, schema_version, content_type,
                                 payload_json, payload_bytes, metadata, recorded_at)
        values (position, p_stream, version, p_id, p_type, p_schema,
                case when p_bytes is null then 'application/json' else 'application/octet-stream' end,
                p_json::json, p_bytes, p_metadata::json, recorded_at);
    kind := 1;
end $$;
