//! The task of one client session: it owns the client's socket and, while bound, the server session.
//!
//! ```text
//!   login ─▶ idle ──request──▶ gather ─▶ execute ──answered──▶ idle
//!              │                            │
//!              │ client closed / KILL /     │ client gone: kill what runs, roll back, in the background
//!              ▼ idle too long / drain      ▼
//!             end ◀─────────────────────── end
//! ```
//! Nothing that happens to a server session can end this task: executing a command gives `Flow::Continue` with an answer or an error reply,
//! or `Flow::End` because of the client.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::auth::accounts::AccountId;
use crate::auth::host::ClientHost;
use crate::net::packet_io::PacketIo;
use crate::net::scratch;
use crate::pool::Opening;
use crate::pool::lease::Lease;
use crate::pool::prepared::StatementKey;
use crate::protocol::ErrorReply;
use crate::protocol::mysql::capability::{Capabilities, StatusFlags};
use crate::protocol::mysql::packet::err::encode_err;
use crate::protocol::mysql::packet::ok::OkPacket;
use crate::proxy::cleanup;
use crate::proxy::context::Context;
use crate::proxy::errors;
use crate::proxy::long_data::LONG_DATA;
use crate::proxy::reader::Readers;
use crate::proxy::registry::{SessionHandle, signal};
use crate::proxy::relay::{Cut, consume};
use crate::proxy::send::Sending;
use crate::proxy::text_statements::TextNeed;
use crate::proxy::wire::{self, RequestError, RequestHead, Woke};
use crate::session::diagnostics::Messages;
use crate::session::held::{self, Held};
use crate::session::loss::{Loss, Untold};
use crate::session::next_transaction::Pending;
use crate::session::pins::Pins;
use crate::session::state::{CharacterSets, ParseState, SessionState};
use crate::session::statement::ClientStatements;
use crate::session::text_statement::TextStatements;
use crate::session::transaction::{Remains, Transaction};
use crate::session::unread::{Assigned, UnreadVariables};
use crate::session::user_variables::Named;
use crate::sql::Flavor as LexFlavor;
use crate::topology::{NodeId, Seen};

/// Whether the session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flow {
    /// The client has its answer.
    Continue,
    /// The client is gone, or must go.
    End,
}

/// The answer to one capture may leave something open that the next one asks for.
const CAPTURES_MAX: usize = 2;

/// The status flags that speak of the session, not of one statement.
pub(super) const LASTING_STATUS: StatusFlags = StatusFlags::IN_TRANS
    .union(StatusFlags::AUTOCOMMIT)
    .union(StatusFlags::NO_BACKSLASH_ESCAPES)
    .union(StatusFlags::IN_TRANS_READONLY)
    .union(StatusFlags::ANSI_QUOTES);

/// What is known of the request being served, and of no other: a new one begins with every command, so that nothing outlives its own.
#[derive(Debug, Default)]
pub(super) struct OfRequest {
    /// What it assigns to session variables.
    pub assigned: Option<Arc<Assigned>>,
    /// The user variables that it names.
    pub named: Option<Arc<Named>>,
    /// Which of the names of statements prepared by text it needs on its server session.
    pub text_need: TextNeed,
    /// It prepares one that is followed.
    pub follows_name: bool,
    /// What the prepared statement that it is about is found by on the bound server session, with values in place of calls.
    pub statement_key: Option<StatementKey>,
    /// It is about a prepared statement and does not execute it: what the statement has on a server session is meant.
    pub id_only: bool,
    /// The bound server session's id of the prepared statement being executed.
    pub server_statement: Option<u32>,
}

/// A client session.
pub struct ClientSession {
    pub(super) cx: Arc<Context>,
    pub(super) handle: Arc<SessionHandle>,
    pub(super) io: PacketIo,
    pub(super) host: ClientHost,
    pub(super) account: AccountId,
    pub(super) opening: Opening,
    /// What the client negotiated with belay.
    pub(super) capabilities: Capabilities,
    pub(super) state: SessionState,
    /// The status flags of the last answer.
    pub(super) status: StatusFlags,
    pub(super) transaction: Transaction,
    /// What the open one may have left behind if it is lost.
    pub(super) remains: Remains,
    pub(super) pins: Pins,
    pub(super) lease: Option<Lease>,
    pub(super) statements: ClientStatements,
    /// Counts the client's statements; names the last use of a server session.
    pub(super) statement: u64,
    pub(super) row_count: i64,
    /// FOUND_ROWS() by belay's own count; `None` where only the server session that ran the statement knows.
    pub(super) found_rows: Option<u64>,
    /// The server session of the last statement is the one that ran the statement FOUND_ROWS() is about, and nobody has used it since.
    pub(super) found_rows_here: bool,
    /// NEXTVAL ran on the bound server session, so LASTVAL() there is this client's own.
    pub(super) sequence_here: bool,
    /// The character sets of the login.
    pub(super) login_charsets: CharacterSets,
    /// The node that failed this session last, and the version of the snapshot that was in force then.
    pub(super) avoid: Option<(NodeId, u64)>,
    /// What was lost and not told yet: it is in the answer to its next request.
    pub(super) lost: Untold,
    pub(super) draining: bool,
    /// The login revealed what opens further server sessions.
    pub(super) reopenable: bool,
    /// The client has been told that belay can do nothing more for it.
    pub(super) over: bool,
    /// What has become of the bytes of the request being served.
    pub(super) sending: Sending,
    /// Where the last answer was cut off, if it was.
    pub(super) cut: Cut,
    /// What the lexer has to know of the servers.
    pub(super) lex_flavor: LexFlavor,
    /// What is known of the request being served.
    pub(super) of_request: OfRequest,
    /// What is not known of the variables of the bound server session.
    pub(super) unread_variables: UnreadVariables,
    /// User variables that were written on the bound server session, and not read since.
    pub(super) unread: Vec<Arc<str>>,
    /// The GTID of the client's last transaction that has one (MariaDB).
    pub(super) last_gtid: Option<Bytes>,
    /// What is held on the bound server session by name; `None`: nothing.
    pub(super) held: Option<Box<Held>>,
    /// Where the messages of the last statement are.
    pub(super) messages: Messages,
    /// Statements prepared by text, under the client's names.
    pub(super) text_statements: TextStatements,
    /// Code that belay does not read may have changed names on the bound server session, which is pinned.
    pub(super) names_uncertain: bool,
    /// What the statement prepared last was understood by: most are understood by the same.
    pub(super) parsed: Option<Arc<ParseState>>,
    /// The last statement that touched data, and where; a node that follows must have all of it.
    pub(super) seen: Option<Seen>,
    /// What SET TRANSACTION has set for the next transaction.
    pub(super) next_transaction: Pending,
    /// As the snapshot had it when the present server session was bound.
    pub(super) writer_epoch: u64,
    /// What is known of readers: see `reader.rs`.
    pub(super) readers: Readers,
    /// Something was written that no server has reported a position for yet: the transaction may be open still.
    pub(super) wrote: bool,
}

impl ClientSession {
    /// Serves the client until one of both ends it.
    pub async fn run(mut self) {
        loop {
            if self.is_in_the_way() && Box::pin(self.let_go()).await == Flow::End {
                break;
            }
            if self.capture_what_is_open().await == Flow::End {
                break;
            }
            self.settle();
            if self.draining && self.may_end_now() {
                Box::pin(self.farewell(&errors::shutting_down())).await;
                break;
            }
            let flow =
                match wire::idle(&mut self.io, self.lease.as_ref().map(|l| &l.conn.io.stream), &self.handle).await {
                    Woke::Request => self.request().await,
                    Woke::ClientClosed => Flow::End,
                    Woke::ServerSpoke => {
                        self.server_lost_while_idle();
                        Flow::Continue
                    }
                    Woke::Signals(signals) => self.signals(signals).await,
                };
            if flow == Flow::End || self.over {
                break;
            }
        }
        self.end();
    }

    /// Asks for what is open and may be asked for now.
    async fn capture_what_is_open(&mut self) -> Flow {
        for _ in 0..CAPTURES_MAX {
            if self.wants_capture() && Box::pin(self.capture()).await == Flow::End {
                return Flow::End;
            }
        }
        Flow::Continue
    }

    /// Before every wait: nothing is kept that need not be kept.
    fn settle(&mut self) {
        scratch::give_back(&mut self.io.read_buf);
        scratch::give_back(&mut self.io.write_buf);
        self.release_if_free();
        let momentary = self.lease.is_some() && self.pins_for_a_moment();
        self.handle.goes_idle(Instant::now(), momentary);
    }

    fn may_end_now(&self) -> bool {
        self.transaction != Transaction::Open && self.io.read_buf.is_empty()
    }

    async fn signals(&mut self, signals: u8) -> Flow {
        if signals & signal::KILLED != 0 {
            Box::pin(self.farewell(&errors::killed())).await;
            return Flow::End;
        }
        if signals & signal::IDLE_TOO_LONG != 0 {
            Box::pin(self.farewell(&errors::idle_too_long())).await;
            return Flow::End;
        }
        if signals & signal::DRAIN != 0 {
            self.draining = true;
        }
        if signals & (signal::PIN_EXPIRED | signal::PIN_WANTED) != 0 && Box::pin(self.let_go()).await == Flow::End {
            return Flow::End;
        }
        if signals & signal::NODE_LOST != 0
            && self.lease.as_ref().is_some_and(|lease| self.cx.cluster.load().is_down(lease.node))
        {
            self.server_lost_while_idle();
        }
        Flow::Continue
    }

    /// An error nobody asked for, before the connection is closed. Servers do the same; its number is 0 because no request precedes it.
    async fn farewell(&mut self, error: &ErrorReply) {
        let mut payload = BytesMut::new();
        encode_err(&mut payload, error, true);
        let mut out = BytesMut::new();
        let mut seq = 0;
        crate::protocol::mysql::frame::encode_packet(&mut out, &mut seq, &payload);
        // The client may be gone already; then there is nobody to tell.
        let _ = wire::send(&mut self.io.stream, &out, Duration::from_secs(1)).await;
    }

    async fn request(&mut self) -> Flow {
        self.handle.goes_busy();
        match wire::gather(&mut self.io, self.cx.client_write_timeout).await {
            Ok(head) => self.execute(head).await,
            Err(RequestError::ClientClosed) => Flow::End,
            Err(RequestError::OutOfOrder) => {
                let _ = self.reply_error(&errors::out_of_order()).await;
                Flow::End
            }
            Err(RequestError::Empty) => {
                consume(&mut self.io.read_buf, crate::protocol::mysql::frame::HEADER_BYTES);
                self.reply_error(&errors::malformed("a command without a byte")).await
            }
        }
    }

    /// Gives the server session back if neither transaction nor pin holds it.
    pub(super) fn release_if_free(&mut self) {
        if self.lease.is_none() || self.transaction == Transaction::Open || !self.pins.is_empty() {
            return;
        }
        let Some(lease) = self.lease.take() else { return };
        let tainted = {
            let mut running = self.handle.running();
            running.target = None;
            std::mem::take(&mut running.tainted) || running.kills_in_flight > 0
        };
        let now = Instant::now();
        self.set_pins(Pins::NONE);
        self.sequence_here = false;
        if tainted {
            // A KILL may still take effect on this server session: nobody else may get it.
            self.handle.decided(now, "throw away", Some(lease.node), "a KILL was sent to this server session");
            self.server_session_gone(&lease);
            drop(lease);
            return;
        }
        self.give_back(lease, now);
    }

    /// After a server session was thrown away: what only it knew is lost.
    pub(super) fn server_session_gone(&self, lease: &Lease) {
        self.cx.insert_id_lost(self.handle.id, lease.serial);
        if let Some(other) = lease.unread_insert_id {
            self.cx.insert_id_lost(other, lease.serial);
        }
    }

    /// The pins of this session, in its own notes, in the pool's and in the metrics.
    pub(super) fn set_pins(&mut self, pins: Pins) {
        if !held::may_hold(pins) {
            self.held = None;
        }
        if pins == self.pins {
            return;
        }
        let now = Instant::now();
        let since = {
            let mut notes = self.handle.notes();
            let since = notes.pinned_since;
            notes.pins = pins;
            notes.pinned_since = if pins.is_empty() { None } else { Some(since.unwrap_or(now)) };
            since
        };
        self.cx.measure.pins_changed(self.pins, pins, since.map_or(Duration::ZERO, |s| now.duration_since(s)));
        self.pins = pins;
        if self.names_uncertain && !pins.is_lasting() {
            // The server session that knew them is gone.
            self.names_uncertain = false;
            self.text_statements.clear();
        }
        if let Some(endpoint) = self.lease.as_ref().and_then(|l| l.endpoint()) {
            // What belay is about to read takes nobody's place.
            endpoint.set_pins(self.handle.id, pins.without_unread());
        }
    }

    fn server_lost_while_idle(&mut self) {
        let Some(lease) = &self.lease else { return };
        self.cx.cluster.suspect(lease.node);
        self.lose_bound();
    }

    /// Throws the bound server session away. What was lost with it is told to the client with its next statement.
    pub(super) fn lose_bound(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        self.server_session_gone(&lease);
        self.lost_lease(lease, crate::error::Stage::Idle);
    }

    /// Settles what the loss of the bound server session means at this stage, for the statements to come.
    pub(super) fn lost_lease(&mut self, lease: Lease, stage: crate::error::Stage) {
        if !self.note_lost(&lease, stage) && stage == crate::error::Stage::Idle {
            self.cx.measure.masked(crate::metrics::labels::Masked::IdleLoss);
        }
        self.handle.decided(Instant::now(), "server session lost", Some(lease.node), stage.label());
        self.cx.measure.failure(crate::error::Side::Server, stage);
        self.unbound_from(&lease);
        drop(lease);
    }

    /// Holds what goes with the bound server session until it is told; false: nothing does that the client knows of.
    pub(super) fn note_lost(&mut self, lease: &Lease, stage: crate::error::Stage) -> bool {
        use crate::failover::{Cause, Decision, Extent, Failure, Statement, decide};
        let failure = Failure {
            stage,
            cause: Cause::ConnectionLost,
            statement: Statement::MayCommit,
            extent: Extent::Part,
            transaction: self.transaction,
            autocommit: self.status.contains(StatusFlags::AUTOCOMMIT),
            pins: self.pins,
            answer_begun: false,
        };
        let transaction = self.transaction != Transaction::Idle;
        let state = match decide(&failure) {
            Decision::StateLost => self.lost_pins(false),
            Decision::TransactionLost => Pins::NONE,
            _ => return false,
        };
        let remains = std::mem::take(&mut self.remains);
        self.lost.add(Loss { node: self.cx.node_name(lease.node), transaction: transaction.then_some(remains), state });
        if transaction {
            self.transaction = Transaction::Lost;
        }
        self.status.remove(StatusFlags::IN_TRANS | StatusFlags::IN_TRANS_READONLY);
        true
    }

    /// The error that tells what was lost, for the answer that is due now.
    pub(super) fn tell_lost(&mut self) -> Option<ErrorReply> {
        let loss = self.lost.tell()?;
        self.transaction = Transaction::Idle;
        Some(errors::lost(&loss))
    }

    /// The same, for a server session that was taken out already.
    pub(super) fn unbound_from(&mut self, lease: &Lease) {
        if let Some(endpoint) = lease.endpoint() {
            endpoint.set_pins(self.handle.id, Pins::NONE);
        }
        self.unbound();
    }

    /// The session has no server session any more, for whatever reason.
    pub(super) fn unbound(&mut self) {
        let mut running = self.handle.running();
        running.target = None;
        running.busy = false;
        running.tainted = false;
        drop(running);
        self.sequence_here = false;
        self.forget_unread(self.pins);
        self.statements.unbound(&errors::value_lost(LONG_DATA));
        self.next_transaction_unbound();
        self.messages_unbound();
        if let Some(lease) = &self.lease
            && let Some(endpoint) = lease.endpoint()
        {
            endpoint.set_pins(self.handle.id, Pins::NONE);
        }
        self.set_pins(Pins::NONE);
    }

    /// The status flags that are about the session; the others were about one answer.
    pub(super) fn lasting_status(&self) -> StatusFlags {
        const LASTING: StatusFlags = StatusFlags::IN_TRANS
            .union(StatusFlags::IN_TRANS_READONLY)
            .union(StatusFlags::AUTOCOMMIT)
            .union(StatusFlags::NO_BACKSLASH_ESCAPES)
            .union(StatusFlags::ANSI_QUOTES);
        self.status & LASTING
    }

    /// Sends an OK of belay's own.
    pub(super) async fn reply_ok(&mut self) -> Flow {
        self.row_count = 0;
        let status = self.lasting_status();
        let ok = OkPacket { affected_rows: 0, last_insert_id: 0, status, warnings: 0, info: b"", session_state: b"" };
        let mut payload = BytesMut::new();
        ok.encode(&mut payload, self.capabilities, 0);
        self.send(&wire::packet(&payload)).await
    }

    /// Sends the EOF (or the OK in its place) that answers COM_SET_OPTION.
    pub(super) async fn reply_eof(&mut self) -> Flow {
        let status = self.lasting_status();
        let mut payload = BytesMut::new();
        if self.capabilities.contains(Capabilities::DEPRECATE_EOF) {
            let ok =
                OkPacket { affected_rows: 0, last_insert_id: 0, status, warnings: 0, info: b"", session_state: b"" };
            ok.encode(&mut payload, self.capabilities, 0xFE);
        } else {
            crate::protocol::mysql::packet::eof::EofPacket { warnings: 0, status }.encode(&mut payload);
        }
        self.send(&wire::packet(&payload)).await
    }

    /// Sends an error of belay's own, or one that a node gave to a statement of belay's own.
    pub(super) async fn reply_error(&mut self, error: &ErrorReply) -> Flow {
        self.cx.measure.client_error();
        let mut payload = BytesMut::new();
        encode_err(&mut payload, error, true);
        self.row_count = -1;
        if !errors::is_about_messages(error) {
            self.forget_messages();
        }
        self.send(&wire::packet(&payload)).await
    }

    /// Sends bytes to the client.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Flow {
        match wire::send(&mut self.io.stream, bytes, self.cx.client_write_timeout).await {
            Ok(()) => Flow::Continue,
            Err(_) => Flow::End,
        }
    }

    /// Drops a request of which nothing was sent, reading on if it is longer than the buffer.
    pub(super) async fn skip_request(&mut self, head: RequestHead) -> Flow {
        self.skip_rest(head.header.frame_len(), head.header.continues()).await
    }

    /// Drops `left` bytes of a frame and the frames that continue it.
    pub(super) async fn skip_rest(&mut self, left: usize, continues: bool) -> Flow {
        let (mut left, mut continues) = (left, continues);
        loop {
            while left > 0 {
                let take = left.min(self.io.read_buf.len());
                consume(&mut self.io.read_buf, take);
                left -= take;
                if left > 0 && !self.read_client().await {
                    return Flow::End;
                }
            }
            if !continues {
                return Flow::Continue;
            }
            let next = loop {
                match crate::protocol::mysql::frame::FrameHeader::parse(&self.io.read_buf) {
                    Some(next) => break next,
                    None if self.read_client().await => {}
                    None => return Flow::End,
                }
            };
            (left, continues) = (next.frame_len(), next.continues());
        }
    }

    /// Reads more of the client; false when it has closed, or is silent in the middle of a request.
    pub(super) async fn read_client(&mut self) -> bool {
        scratch::ensure(&mut self.io.read_buf);
        self.io.read_buf.reserve(scratch::SCRATCH_BYTES);
        wire::read_more(&mut self.io.stream, &mut self.io.read_buf, self.cx.client_write_timeout).await
    }

    /// Takes the payload of a complete request as bytes of their own.
    pub(super) fn take_payload(&mut self, head: RequestHead) -> Bytes {
        use crate::protocol::mysql::frame::HEADER_BYTES;
        let end = head.header.frame_len().min(self.io.read_buf.len());
        let payload = Bytes::copy_from_slice(&self.io.read_buf[HEADER_BYTES.min(end)..end]);
        consume(&mut self.io.read_buf, end);
        payload
    }

    fn end(mut self) {
        self.end_now();
    }

    /// Gives up what the session holds.
    pub(super) fn end_now(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        let running = {
            let mut running = self.handle.running();
            running.target = None;
            running.busy || running.tainted || running.kills_in_flight > 0
        };
        let pins = self.pins;
        let unclean = running || self.transaction != Transaction::Idle || !pins.is_empty();
        self.unbound_from(&lease);
        if unclean {
            cleanup::in_background(self.cx.clone(), lease, running, pins);
        } else {
            lease.release(Instant::now());
        }
    }
}
