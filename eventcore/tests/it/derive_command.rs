//! `#[derive(Command)]`: which streams a command names, and what it can append to.

use eventcore::{
    Command, CommandContext, CommandError, CommandLogic, DecisionStep, Discovered, Entropy, Event, EventId, NewEvents,
    ReadHandle, RecordedEvent, RetryPolicy, StreamHandle, StreamId, StreamName, StreamsRead, ValidationError, decide,
};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::marker::PhantomData;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(namespace = "test")]
struct Noted(String);

#[derive(Debug, Clone)]
struct AccountId(u32);

impl StreamName for AccountId {
    fn stream_id(&self) -> Result<StreamId, ValidationError> {
        StreamId::new(format!("account-{}", self.0))
    }
}

fn stream(name: &str) -> StreamId {
    StreamId::new(name).unwrap()
}

struct Ids;

impl Entropy for Ids {
    fn event_id(&mut self) -> EventId {
        EventId::generate()
    }

    fn jitter(&mut self) -> f64 {
        0.0
    }
}

/// What a command read and what it appended, on streams without events.
#[derive(Debug, PartialEq)]
struct Ran {
    read: Vec<String>,
    /// Stream and payload of each event.
    appended: Vec<(String, String)>,
    /// The streams of the append, and whether each is written.
    expected: Vec<(String, bool)>,
}

fn run<C: CommandLogic<Event = Noted>>(command: C) -> Result<Ran, CommandError<C::Error>> {
    let mut ran = Ran { read: Vec::new(), appended: Vec::new(), expected: Vec::new() };
    let mut step = decide(command, CommandContext::new(), RetryPolicy::default());
    loop {
        step = match step {
            DecisionStep::Read(reading) => {
                let streams = reading.request().streams().to_vec();
                let versions = streams.iter().map(|stream| stream.after).collect();
                ran.read = streams.iter().map(|stream| stream.stream_id.to_string()).collect();
                reading.read(Ok(StreamsRead { versions, ..StreamsRead::default() }), &mut Ids)
            }
            DecisionStep::Append(appending) => {
                let request = appending.request();
                let stream_of = |event| request.stream_of(event).to_string();
                let text = |payload: &[u8]| String::from_utf8(payload.to_vec()).unwrap();
                ran.appended = request
                    .events()
                    .iter()
                    .map(|event| (stream_of(event), text(event.event.payload.bytes())))
                    .collect();
                ran.expected =
                    request.streams().iter().map(|stream| (stream.stream_id.to_string(), stream.written)).collect();
                return Ok(ran);
            }
            DecisionStep::Wait(_) => panic!("nothing to wait for"),
            DecisionStep::Recall(_) | DecisionStep::Load(_) | DecisionStep::Keep(_) => panic!("nothing was kept"),
            DecisionStep::Done(result) => return result.map(|_| ran),
        }
    }
}

/// `CommandLogic` with nothing in it but `handle`.
macro_rules! logic {
    ([$($generics:tt)*] $command:ty, |$this:ident, $streams:ident| $events:expr) => {
        impl<$($generics)*> CommandLogic for $command {
            type Event = Noted;
            type State = ();
            type Error = Infallible;

            fn apply(&self, (): &mut (), _: &RecordedEvent<Noted>) {}

            fn handle(&self, (): &(), $streams: &Self::Streams) -> Result<NewEvents<Self>, Infallible> {
                let $this = self;
                Ok($events)
            }
        }
    };
}

fn note(text: impl ToString) -> Noted {
    Noted(text.to_string())
}

/// Every kind of field.
#[derive(Command)]
#[command(name = "bank.transfer")]
struct Transfer {
    amount: u32,
    #[stream]
    from: AccountId,
    #[stream]
    r#type: StreamId,
    #[stream(read_only)]
    limits: StreamId,
    #[stream]
    fees: Vec<AccountId>,
    #[stream(read_only)]
    rules: std::vec::Vec<StreamId>,
    #[stream]
    bonus: Option<StreamId>,
    #[stream(read_only)]
    holiday: ::core::option::Option<AccountId>,
}

logic!([] Transfer, |this, streams| {
    // The fields' types are what the documentation says.
    let _: &ReadHandle<Self> = &streams.limits;
    let _: &Vec<ReadHandle<Self>> = &streams.rules;
    let _: &Option<ReadHandle<Self>> = &streams.holiday;
    let mut events = NewEvents::new().append(&streams.from, note(this.amount)).append(&streams.r#type, note("type"));
    for fee in &streams.fees {
        events.push(fee, note(fee.stream_id()));
    }
    let bonus: &Option<StreamHandle<Self>> = &streams.bonus;
    if let Some(bonus) = bonus {
        events.push(bonus, note("bonus"));
    }
    events
});

fn transfer() -> Transfer {
    Transfer {
        amount: 7,
        from: AccountId(1),
        r#type: stream("type"),
        limits: stream("limits"),
        fees: vec![AccountId(2), AccountId(3)],
        rules: vec![stream("rule")],
        bonus: Some(stream("bonus")),
        holiday: Some(AccountId(4)),
    }
}

fn pairs<T: Clone>(pairs: &[(&str, T)]) -> Vec<(String, T)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

#[test]
fn every_stream_field_is_read_in_order_and_the_writable_ones_can_be_appended_to() {
    let ran = run(transfer()).unwrap();
    let read = ["account-1", "type", "limits", "account-2", "account-3", "rule", "bonus", "account-4"];
    assert_eq!(ran.read, read);
    let text = |text: &str| format!("{text:?}");
    let appended = [
        ("account-1", text("7")),
        ("type", text("type")),
        ("account-2", text("account-2")),
        ("account-3", text("account-3")),
        ("bonus", text("bonus")),
    ];
    assert_eq!(ran.appended, pairs(&appended));
    let written = [true, true, false, true, true, false, true, false];
    assert_eq!(ran.expected, pairs(&read.into_iter().zip(written).collect::<Vec<_>>()));
}

#[test]
fn empty_vecs_and_options_name_no_stream() {
    let ran = run(Transfer { fees: vec![], rules: vec![], bonus: None, holiday: None, ..transfer() }).unwrap();
    assert_eq!(ran.read, ["account-1", "type", "limits"]);
}

#[test]
fn two_fields_that_name_one_stream_are_one_participant_and_writable_wins() {
    let ran = run(Transfer {
        r#type: stream("x"),
        limits: stream("x"),
        fees: vec![AccountId(1), AccountId(1)],
        rules: vec![stream("x")],
        bonus: None,
        holiday: None,
        ..transfer()
    })
    .unwrap();
    assert_eq!(ran.read, ["account-1", "x"]);
    assert_eq!(ran.expected, pairs(&[("account-1", true), ("x", true)]));
    assert_eq!(ran.appended.len(), 4);
}

#[test]
fn the_command_type_is_the_name_given_or_that_of_the_struct() {
    assert_eq!(Transfer::command_type(), "bank.transfer");
    assert_eq!(Tuple::command_type(), "Tuple");
    assert_eq!(Generic::<AccountId, 2>::command_type(), "Generic");
}

#[derive(Command)]
struct Tuple(String, #[stream] AccountId, #[stream(read_only)] Option<StreamId>);

logic!([] Tuple, |this, streams| {
    let _: &Option<ReadHandle<Self>> = &streams.stream_2;
    NewEvents::new().append(&streams.stream_1, note(&this.0))
});

#[test]
fn handles_of_a_tuple_struct_are_named_after_its_fields() {
    let ran = run(Tuple("hello".into(), AccountId(9), Some(stream("other")))).unwrap();
    assert_eq!(ran.read, ["account-9", "other"]);
    assert_eq!(ran.appended, pairs(&[("account-9", r#""hello""#.to_owned())]));
}

/// Type and const parameters, defaults, bounds and a where clause; nothing about threads or `'static` has to be said.
#[derive(Command)]
struct Generic<T, const N: usize = 1, U: Clone = u8>
where
    T: Clone,
{
    #[stream]
    one: T,
    #[stream(read_only)]
    more: Vec<T>,
    #[stream]
    fixed: StreamId,
    kept: [Option<U>; N],
    marker: PhantomData<fn(U)>,
}

logic!([T: StreamName + Clone + Send + Sync + 'static, const N: usize] Generic<T, N>, |this, streams| {
    let streams: &GenericStreams<T, N> = streams;
    NewEvents::new().append(&streams.one, note(this.kept.len())).append(&streams.fixed, note(N))
});

#[test]
fn a_generic_command_has_generic_handles() {
    let ran = run(Generic::<_, 2> {
        one: AccountId(1),
        more: vec![AccountId(2)],
        fixed: stream("fixed"),
        kept: [None, Some(1)],
        marker: PhantomData,
    })
    .unwrap();
    assert_eq!(ran.read, ["account-1", "account-2", "fixed"]);
    assert_eq!(ran.appended, pairs(&[("account-1", r#""2""#.to_owned()), ("fixed", r#""2""#.to_owned())]));
}

/// Finds a stream to write and one to read.
#[derive(Command)]
struct Discovering {
    #[stream(read_only)]
    discovered: StreamId,
}

impl CommandLogic for Discovering {
    type Event = Noted;
    type State = ();
    type Error = Infallible;

    fn apply(&self, (): &mut (), _: &RecordedEvent<Noted>) {}

    fn discover(&self, (): &()) -> Discovered {
        Discovered::none().write(stream("found")).read(stream("seen"))
    }

    fn handle(&self, (): &(), streams: &DiscoveringStreams) -> Result<NewEvents<Self>, Infallible> {
        // A field of that name does not get in the way of the accessor.
        let text = format!("{}+{}", streams.discovered.stream_id(), streams.discovered().read_only()[0].stream_id());
        Ok(NewEvents::new().append(&streams.discovered().writable()[0], note(text)))
    }
}

#[test]
fn discovered_streams_are_lent_beside_the_declared_ones() {
    let ran = run(Discovering { discovered: stream("start") }).unwrap();
    assert_eq!(ran.read, ["start", "found", "seen"]);
    assert_eq!(ran.appended, pairs(&[("found", r#""start+seen""#.to_owned())]));
    assert_eq!(ran.expected, pairs(&[("start", false), ("found", true), ("seen", false)]));
}

/// Shows its handles, and needs no `Debug` of its own for it.
#[derive(Command)]
struct Shown {
    #[stream]
    to: StreamId,
    #[stream(read_only)]
    from: Vec<AccountId>,
}

logic!([] Shown, |_this, streams| NewEvents::new().append(&streams.to, note(format!("{streams:?}"))));

#[test]
fn handles_can_be_shown() {
    let ran = run(Shown { to: stream("log"), from: vec![AccountId(1)] }).unwrap();
    let (_, shown) = &ran.appended[0];
    for part in ["ShownStreams", "to: StreamHandle", "from: [ReadHandle", "account-1", "discovered: DiscoveredStreams"]
    {
        assert!(shown.contains(part), "{part} in {shown}");
    }
}

struct NoName;

impl StreamName for NoName {
    fn stream_id(&self) -> Result<StreamId, ValidationError> {
        StreamId::new("")
    }
}

#[derive(Command)]
struct Nameless {
    #[stream]
    one: StreamId,
    #[stream]
    many: Vec<NoName>,
    #[stream(read_only)]
    maybe: Option<NoName>,
}

logic!([] Nameless, |_this, _streams| NewEvents::new());

#[test]
fn a_field_that_makes_no_valid_stream_name_is_an_error() {
    for (many, maybe) in [(vec![NoName], None), (vec![], Some(NoName))] {
        let error = run(Nameless { one: stream("x"), many, maybe }).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap();
        assert!(cause.downcast_ref::<ValidationError>().is_some_and(|e| e.what() == "StreamId"), "{cause}");
    }
    assert!(run(Nameless { one: stream("x"), many: vec![], maybe: None }).is_ok());
}
