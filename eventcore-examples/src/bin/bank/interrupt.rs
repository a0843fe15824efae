//! Being told to stop.

use std::io;

/// Returns at Ctrl-C, or when the system asks the program to end (SIGTERM).
///
/// # Errors
/// If nothing can be listened to; then the system ends the program by itself.
pub(crate) async fn asked_to_stop() -> io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
