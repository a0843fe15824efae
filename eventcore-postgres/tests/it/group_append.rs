//! A group is appended at once where that is possible, and judged one by one else. Both ways have to say the same.

use crate::fixtures::{Log, stream};
use eventcore::EventStore;
use fastrand::Rng;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use uuid::Uuid;

const STREAMS: i32 = 5;
const GROUPS: u64 = 120;
const VERSIONS: &str = "select coalesce(max(e.version), 0) from generate_series(1, $1) n \
                        left join @.events e on e.stream = 'stream-' || n group by n order by n";

/// A group as the functions take it.
#[derive(Debug, Default)]
struct Group {
    x_ends: Vec<i32>,
    e_ends: Vec<i32>,
    streams: Vec<String>,
    writes: Vec<bool>,
    x_stream: Vec<i32>,
    x_expected: Vec<i64>,
    x_before: Vec<i64>,
    e_stream: Vec<i32>,
    e_nth: Vec<i64>,
    e_id: Vec<Uuid>,
    e_type: Vec<String>,
    e_schema: Vec<i32>,
    e_json: Vec<Option<String>>,
    e_bytes: Vec<Option<Vec<u8>>>,
    e_metadata: Vec<Option<String>>,
}

/// What became of it.
#[derive(Debug, PartialEq)]
struct Answer {
    kinds: Vec<i16>,
    spots: Vec<Option<i32>>,
    actuals: Vec<Option<i64>>,
    versions: Vec<Option<i64>>,
    positions: Vec<Option<i64>>,
}

impl Group {
    /// A few requests; most of them expect what will be there.
    fn random(random: &mut Rng, versions: &[i64]) -> Self {
        let mut group = Self {
            streams: (1..=STREAMS).map(|n| format!("stream-{n}")).collect(),
            writes: vec![false; versions.len()],
            ..Self::default()
        };
        let mut added = vec![0; versions.len()];
        for _ in 0..random.usize(1..7) {
            let mut own: Vec<usize> = (0..versions.len()).collect();
            random.shuffle(&mut own);
            own.truncate(random.usize(1..3));
            for &index in &own {
                group.x_stream.push(index as i32 + 1);
                group.x_before.push(added[index]);
                group.x_expected.push(match random.u8(..30) {
                    0..8 => -1,
                    8..10 => -2,
                    10 => versions[index] + 7,
                    _ => versions[index] + added[index],
                });
            }
            for _ in 0..random.usize(..4) {
                let index = own[random.usize(..own.len())];
                added[index] += 1;
                group.writes[index] = true;
                group.e_stream.push(index as i32 + 1);
                group.e_nth.push(added[index]);
                group.add_content(random);
            }
            group.x_ends.push(group.x_stream.len() as i32);
            group.e_ends.push(group.e_stream.len() as i32);
        }
        group
    }

    /// What an event says, none like another.
    fn add_content(&mut self, random: &mut Rng) {
        self.e_id.push(Uuid::from_u128(random.u128(..)));
        self.e_type.push(format!("test.Type{}", random.u8(..5)));
        self.e_schema.push(random.i32(1..5));
        // It is stored as it was written.
        let json = |random: &mut Rng| format!("{{ \"n\":{},  \"n\" : \"\\u00e4,{{}}\"}}", random.u32(..));
        let in_bytes = random.bool();
        let bytes = in_bytes.then(|| (0..random.usize(..9)).map(|_| random.u8(..)).collect());
        self.e_bytes.push(bytes);
        self.e_json.push((!in_bytes).then(|| json(random)));
        self.e_metadata.push(random.bool().then(|| json(random)));
    }

    async fn append(&self, log: &Log, connection: &mut PgConnection, at_once: bool) -> Answer {
        let names: Vec<&str> = self.e_stream.iter().map(|&n| self.streams[n as usize - 1].as_str()).collect();
        let answer = "select kinds, spots, actuals, versions, positions from";
        let sql = if at_once {
            format!("{answer} @.append_many($1, $2, $3, $4, $5, $6, $15, $7, $16, $8, $9, $10, $11, $12, $13, $14)")
        } else {
            format!(
                "{answer} @.append(false, array_fill(null::text, array[cardinality($1)]), \
                 array_fill(null::uuid, array[cardinality($1)]), $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, \
                 array_fill(null::text, array[cardinality($7)]), false, 0)"
            )
        };
        let query = sqlx::query(AssertSqlSafe(log.sql(&sql)))
            .bind(&self.x_ends)
            .bind(&self.e_ends)
            .bind(&self.streams)
            .bind(&self.writes)
            .bind(&self.x_stream)
            .bind(&self.x_expected)
            .bind(&self.e_stream)
            .bind(names)
            .bind(&self.e_id)
            .bind(&self.e_type)
            .bind(&self.e_schema)
            .bind(&self.e_json)
            .bind(&self.e_bytes)
            .bind(&self.e_metadata);
        let query = if at_once { query.bind(&self.x_before).bind(&self.e_nth) } else { query };
        let row = query.fetch_one(connection).await.unwrap();
        let requests = self.x_ends.len();
        Answer {
            kinds: row.get(0),
            spots: row.get::<Option<_>, _>(1).unwrap_or_else(|| vec![None; requests]),
            actuals: row.get::<Option<_>, _>(2).unwrap_or_else(|| vec![None; requests]),
            versions: row.get(3),
            positions: row.get(4),
        }
    }
}

/// Everything that is stored, except for when.
async fn rows(log: &Log, connection: &mut PgConnection) -> Vec<String> {
    let content = "select row(position, stream, version, event_id, type, schema_version, content_type, payload_json, \
                   payload_bytes, metadata, command_id)::text from @.events order by position";
    sqlx::query_scalar(AssertSqlSafe(log.sql(content))).fetch_all(connection).await.unwrap()
}

#[tokio::test]
async fn a_group_is_judged_alike_at_once_and_one_by_one() {
    let (careful, at_once) = (Log::new().unwrap(), Log::new().unwrap());
    for log in [&careful, &at_once] {
        log.open().await.unwrap().close().await.unwrap();
    }
    let mut connections = [careful.connection().await, at_once.connection().await];
    let mut others = [careful.connection().await, at_once.connection().await];
    let mut random = Rng::with_seed(5);
    let (mut whole, mut partly) = (0, 0);
    for round in 0..GROUPS {
        let versions: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(careful.sql(VERSIONS)))
            .bind(STREAMS)
            .fetch_all(&mut connections[0])
            .await
            .unwrap();
        let group = Group::random(&mut random, &versions);
        // Now and then somebody else is busy with a stream.
        let mut held = Vec::new();
        for (other, log) in others.iter_mut().zip([&careful, &at_once]) {
            let mut transaction = other.begin().await.unwrap();
            if round % 5 == 4 {
                let lock =
                    "select pg_advisory_xact_lock(hashtextextended('stream-1', '@.positions'::regclass::oid::bigint))";
                sqlx::query(AssertSqlSafe(log.sql(lock))).execute(&mut *transaction).await.unwrap();
            }
            held.push(transaction);
        }
        let one_by_one = group.append(&careful, &mut connections[0], false).await;
        let together = group.append(&at_once, &mut connections[1], true).await;
        assert_eq!(one_by_one, together, "round {round}: {group:?}");
        for transaction in held {
            transaction.rollback().await.unwrap();
        }
        let all = together.kinds.iter().all(|kind| *kind == 1);
        *(if all { &mut whole } else { &mut partly }) += 1;
    }
    assert!(whole > 10 && partly > 10, "{whole} groups at once, {partly} in part");
    // What is there is the same, too.
    let (expected, found) = (rows(&careful, &mut connections[0]).await, rows(&at_once, &mut connections[1]).await);
    for (expected, found) in expected.iter().zip(&found) {
        assert_eq!(expected, found);
    }
    assert_eq!(expected.len(), found.len());
    let store = at_once.open().await.unwrap();
    assert!(store.stream_version(&stream("stream-1")).await.unwrap().get() > 0);
    store.close().await.unwrap();
    careful.remove().await.unwrap();
    at_once.remove().await.unwrap();
}
