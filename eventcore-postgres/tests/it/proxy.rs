//! A TCP proxy that cuts a connection between the server's commit and its answer.

use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    Cut,
    Silence,
    /// Nothing is lost, but the end of the answer, which says that the server is done, comes late.
    LateEnd,
}

/// What is looked for is shorter than this.
const LONGEST_MARKER: usize = 100;

/// The bytes to wait for, and what to do then.
type Marker = Arc<Mutex<Option<(Vec<u8>, Loss)>>>;

/// Forwards to a server until told to lose an answer.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    marker: Marker,
    barred: Arc<Mutex<Vec<u8>>>,
    overtaken: Overtaken,
    accepting: tokio::task::JoinHandle<()>,
}

/// Bytes whose answer has not come to its end, and whether they came again meanwhile.
type Overtaken = Arc<Mutex<(Vec<u8>, bool)>>;

/// By how much the end of an answer is late.
const LATE: Duration = Duration::from_millis(200);
/// The last message of an answer, but for its last byte.
const READY: &[u8] = b"Z\0\0\0\x05";

impl Proxy {
    /// `server` is `host:port`.
    pub(crate) async fn start(server: String) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let marker = Arc::new(Mutex::new(None));
        let barred = Arc::new(Mutex::new(Vec::new()));
        let overtaken = Overtaken::default();
        let accepting = tokio::spawn({
            let (marker, barred, overtaken) = (Arc::clone(&marker), Arc::clone(&barred), Arc::clone(&overtaken));
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let (server, marker, barred) = (server.clone(), Arc::clone(&marker), Arc::clone(&barred));
                    let overtaken = Arc::clone(&overtaken);
                    tokio::spawn(async move {
                        if let Ok(server) = TcpStream::connect(server).await {
                            drop(forward(client, server, marker, barred, overtaken).await);
                        }
                    });
                }
            }
        });
        Self { port, marker, barred, overtaken, accepting }
    }

    /// The answer to the next message that holds these bytes is lost, and its connection with it. Once.
    pub(crate) fn lose_answer_to(&self, bytes: &str) {
        *self.marker.lock().unwrap() = Some((bytes.as_bytes().to_vec(), Loss::Cut));
    }

    /// The answer to the next message that holds these bytes never comes, and neither does anything else on its
    /// connection, which stays open. Once.
    pub(crate) fn silence_after(&self, bytes: &str) {
        *self.marker.lock().unwrap() = Some((bytes.as_bytes().to_vec(), Loss::Silence));
    }

    /// The end of the answer to the next message that holds these bytes comes late. Once.
    pub(crate) fn delay_the_end_of(&self, bytes: &str) {
        *self.marker.lock().unwrap() = Some((bytes.as_bytes().to_vec(), Loss::LateEnd));
    }

    /// Whether bytes were sent again before the answer to them had come to its end.
    pub(crate) fn was_overtaken(&self) -> bool {
        self.overtaken.lock().unwrap().1
    }

    /// From now on every connection is cut instead of passing on a message that holds these bytes.
    pub(crate) fn bar(&self, bytes: &str) {
        *self.barred.lock().unwrap() = bytes.as_bytes().to_vec();
    }

    /// Whether the answer has been lost.
    pub(crate) fn has_lost(&self) -> bool {
        self.marker.lock().unwrap().is_none()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn forward(
    client: TcpStream,
    server: TcpStream,
    marker: Marker,
    barred: Arc<Mutex<Vec<u8>>>,
    overtaken: Overtaken,
) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (mut request, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut lose = None;
    // The end of what came before: what is looked for may come in two pieces.
    let mut recent: Vec<u8> = Vec::new();
    loop {
        tokio::select! {
            read = from_client.read(&mut request) => {
                let bytes = &request[..read?];
                if bytes.is_empty() {
                    return Ok(());
                }
                let known = recent.len();
                recent.extend_from_slice(bytes);
                // A find has to reach into the new piece.
                let holds = |wanted: &[u8]| {
                    let begin = known.saturating_sub(wanted.len().saturating_sub(1));
                    !wanted.is_empty() && recent[begin..].windows(wanted.len()).any(|window| window == wanted)
                };
                if holds(&barred.lock().unwrap()) {
                    return Ok(());
                }
                {
                    let mut overtaken = overtaken.lock().unwrap();
                    overtaken.1 |= holds(&overtaken.0);
                }
                let found = marker.lock().unwrap().take_if(|(marker, _)| holds(marker));
                if let Some((marker, Loss::LateEnd)) = &found {
                    overtaken.lock().unwrap().0.clone_from(marker);
                }
                recent.drain(..recent.len().saturating_sub(LONGEST_MARKER));
                lose = lose.or(found.map(|(_, loss)| loss));
                to_server.write_all(bytes).await?;
            }
            read = from_server.read(&mut answer) => {
                let bytes = &answer[..read?];
                // The server answers when it has committed.
                match lose {
                    _ if bytes.is_empty() => return Ok(()),
                    Some(Loss::Cut) => return Ok(()),
                    Some(Loss::Silence) => {}
                    Some(Loss::LateEnd) if bytes.len() > READY.len() && bytes[..bytes.len() - 1].ends_with(READY) => {
                        let (answer, end) = bytes.split_at(bytes.len() - READY.len() - 1);
                        to_client.write_all(answer).await?;
                        tokio::time::sleep(LATE).await;
                        overtaken.lock().unwrap().0.clear();
                        lose = None;
                        to_client.write_all(end).await?;
                    }
                    Some(Loss::LateEnd) => to_client.write_all(bytes).await?,
                    None => to_client.write_all(bytes).await?,
                }
            }
        }
    }
}
