//! From a client's login to its first statement: what a fresh session of this account is in, the schema, and the OK.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::auth::accounts::AccountId;
use crate::auth::host::ClientHost;
use crate::pool::flight::Ask;
use crate::pool::lease::{Lease, Place};
use crate::pool::server_conn::ServerConn;
use crate::pool::session::BEHAVIOUR;
use crate::pool::{Fresh, Opening, setup};
use crate::protocol::ErrorReply;
use crate::protocol::mysql::capability::StatusFlags;
use crate::protocol::mysql::packet::err::encode_err;
use crate::protocol::mysql::packet::ok::OkPacket;
use crate::proxy::aloft::{self, NotLanded};
use crate::proxy::apply::lex_flavor;
use crate::proxy::bind::{BindEnd, while_client_stays};
use crate::proxy::client_login::{ChangedUser, LoggedIn};
use crate::proxy::context::Context;
use crate::proxy::errors;
use crate::proxy::reader::Readers;
use crate::proxy::registry::SessionHandle;
use crate::proxy::relay::Cut;
use crate::proxy::send::Sending;
use crate::proxy::session::{ClientSession, Flow, OfRequest};
use crate::session::baseline::Baseline;
use crate::session::diagnostics::Messages;
use crate::session::effects::InsertIdNeed;
use crate::session::loss::Untold;
use crate::session::next_transaction::Pending;
use crate::session::pins::{PinReason, Pins};
use crate::session::state::{CharacterSets, SessionState};
use crate::session::statement::ClientStatements;
use crate::session::text_statement::TextStatements;
use crate::session::transaction::{Remains, Transaction};
use crate::session::unread::UnreadVariables;
use crate::topology::collations::AtLogin;
use crate::topology::{NodeId, NodeView};

/// The outcome of a login or of COM_CHANGE_USER.
pub(super) struct Entered {
    pub account: AccountId,
    pub schema: Option<Bytes>,
    pub collation: u16,
    pub opening: Option<Opening>,
    pub dedicated: Option<(NodeId, ServerConn)>,
}

/// The login ended with an error that was sent, or the client is gone.
pub(super) struct LoginOver;

impl ClientSession {
    /// A session of a client that has proven who it is and waits for the OK; `None` if it got an error instead, or is gone.
    pub async fn begin(
        cx: Arc<Context>,
        handle: Arc<SessionHandle>,
        login: LoggedIn,
        host: ClientHost,
    ) -> Option<ClientSession> {
        let snapshot = cx.cluster.load();
        let lex = lex_flavor(snapshot.flavor, &snapshot.server_version);
        let empty = Arc::new(Baseline::default());
        let LoggedIn { io, user, account, schema, capabilities, collation, opening, dedicated, .. } = login;
        let behaviour = capabilities & BEHAVIOUR;
        let mut session = ClientSession {
            opening: opening
                .clone()
                .unwrap_or_else(|| Opening::with_password(user, crate::config::Secret::new(String::new()))),
            cx,
            handle,
            io,
            host,
            account: account.clone(),
            capabilities,
            state: SessionState::new(empty, CharacterSets::default(), None),
            status: StatusFlags::AUTOCOMMIT,
            transaction: Transaction::Idle,
            remains: Remains::Nothing,
            pins: Pins::NONE,
            lease: None,
            statements: ClientStatements::default(),
            statement: 0,
            row_count: 0,
            found_rows: Some(0),
            found_rows_here: false,
            sequence_here: false,
            login_charsets: CharacterSets::default(),
            avoid: None,
            lost: Untold::default(),
            draining: false,
            reopenable: true,
            over: false,
            sending: Sending::Untouched,
            cut: Cut::default(),
            lex_flavor: lex,
            of_request: OfRequest::default(),
            unread_variables: UnreadVariables::default(),
            last_gtid: None,
            held: None,
            unread: Vec::new(),
            messages: Messages::None,
            parsed: None,
            text_statements: TextStatements::default(),
            names_uncertain: false,
            seen: None,
            next_transaction: Pending::Nothing,
            writer_epoch: 0,
            wrote: false,
            readers: Readers::default(),
        };
        session.opening.behaviour = behaviour;
        session.enter(Entered { account, schema, collation, opening, dedicated }).await.ok()?;
        match session.login_ok().await {
            Flow::Continue => Some(session),
            Flow::End => None,
        }
    }

    /// Puts the session into the state of a fresh login. An error is sent to the client.
    pub(super) async fn enter(&mut self, entered: Entered) -> Result<(), LoginOver> {
        self.handle.set_account(entered.account.clone());
        self.account = entered.account;
        self.reopenable = entered.opening.is_some();
        if let Some(mut opening) = entered.opening {
            opening.behaviour = self.capabilities & BEHAVIOUR;
            self.opening = opening;
        }
        let hold_until = Instant::now() + self.cx.hold_timeout;
        // A server session that has a schema can't go back to none: it will do for a client that is about to choose one.
        self.state.set_schema(entered.schema.as_deref());
        let fresh = match entered.dedicated {
            Some((node, conn)) => self.adopt(node, conn).await,
            None => self.fresh(entered.schema.is_some(), hold_until).await,
        };
        let fresh = match fresh {
            Ok(fresh) => fresh,
            Err(BindEnd::ClientGone) => return self.login_left(),
            Err(BindEnd::Refused(error)) => return self.login_error(&error).await,
            Err(BindEnd::Lost(_)) => {
                return self.login_error(&errors::no_node("server sessions were lost during the login")).await;
            }
        };
        let charsets = match self.charsets_at_login(entered.collation) {
            Ok(charsets) => charsets.unwrap_or(fresh.charsets),
            Err(error) => return self.login_error(&error).await,
        };
        self.state = SessionState::new(fresh.baseline, charsets, None);
        if let Some(schema) = &entered.schema
            && let Err(error) = self.enter_schema(schema, hold_until).await
        {
            return match error {
                BindEnd::Refused(error) => self.login_error(&error).await,
                BindEnd::ClientGone => self.login_left(),
                BindEnd::Lost(_) => {
                    self.login_error(&errors::no_node("the server session was lost during the login")).await
                }
            };
        }
        if self.state.get("autocommit").is_some_and(|v| v.as_ref() == b"OFF") {
            self.status.remove(StatusFlags::AUTOCOMMIT);
        }
        self.set_idle_limit();
        self.refresh_notes();
        Ok(())
    }

    /// The character sets of a login with this collation, by the node that it is on; `None` where those of no collation are not known.
    fn charsets_at_login(&mut self, collation: u16) -> Result<Option<CharacterSets>, ErrorReply> {
        let snapshot = self.cx.cluster.load();
        let bound = self.lease.as_ref().and_then(|lease| snapshot.node(lease.node));
        let Some(view) = bound.or(snapshot.default_node()) else { return Ok(None) };
        match view.charsets.at_login(collation, view.flavor) {
            AtLogin::Given(sets) => {
                self.login_charsets = sets.clone();
                Ok(Some(sets))
            }
            AtLogin::Global(sets) => {
                // MariaDB's COM_RESET_CONNECTION goes back to the collation that was named last, or to the server's own (observed).
                if self.login_charsets.client.is_empty() {
                    self.login_charsets = view.charsets.own_default(view.flavor).or(sets.clone()).unwrap_or_default();
                }
                Ok(sets)
            }
            // The login was seen to be possible on the node that served then.
            AtLogin::Refused(charset) => Err(errors::wrong_value("character_set_client", &charset)),
        }
    }

    /// wait_timeout of the session, or the configured limit if that is shorter. (An interactive login starts with interactive_timeout in it.)
    pub(super) fn set_idle_limit(&self) {
        let own = self.state.get("wait_timeout").and_then(|v| std::str::from_utf8(v).ok()?.parse::<u64>().ok());
        let own_ms = own.unwrap_or(28_800) * 1_000;
        let configured = self.cx.config.session.idle_timeout_ms;
        self.handle.set_idle_timeout_ms(if configured == 0 { own_ms } else { own_ms.min(configured) });
    }

    /// A server session of its own, for a login that can't be repeated.
    async fn adopt(&mut self, node: NodeId, conn: ServerConn) -> Result<Fresh, BindEnd> {
        let snapshot = self.cx.cluster.load();
        let Some(view) = snapshot.node(node) else {
            return Err(BindEnd::Refused(errors::no_node("no node")));
        };
        let behaviour = self.capabilities & BEHAVIOUR;
        let prepared = Box::pin(self.cx.pool.prepare(view, &self.account, conn, behaviour));
        let session = while_client_stays(&self.io.stream, &self.handle, prepared)
            .await
            .ok_or(BindEnd::ClientGone)?
            .map_err(|e| BindEnd::Refused(errors::no_node(&e.to_string())))?;
        let fresh = Fresh {
            globals_fingerprint: view.globals_fingerprint,
            baseline: session.state.baseline().clone(),
            charsets: session.state.charsets().clone(),
        };
        self.bound(Lease::new(session, Place::uncounted()));
        let mut pins = Pins::NONE;
        pins.insert(PinReason::LoginNotRecorded);
        self.set_pins(pins);
        Ok(fresh)
    }

    /// What a fresh login gets: known from the last one on this node, or asked of the node.
    async fn fresh(&mut self, bind_anyway: bool, hold_until: Instant) -> Result<Fresh, BindEnd> {
        let snapshot = self.cx.cluster.load();
        if let Some(view) = snapshot.writer_node()
            && !bind_anyway
            && let Some(fresh) = self.cx.pool.fresh(view, &self.account, self.capabilities)
        {
            return Ok(fresh);
        }
        loop {
            let mut lease = self.bind_any(hold_until).await?;
            let snapshot = self.cx.cluster.load();
            let Some(view) = snapshot.node(lease.node) else { return Err(BindEnd::Lost(crate::error::Stage::Acquire)) };
            if let Some(fresh) = self.cx.pool.fresh(view, &self.account, self.capabilities) {
                self.bound(lease);
                return Ok(fresh);
            }
            match self.ask_globals(&mut lease, view).await {
                Ok(Some(fresh)) => {
                    self.bound(lease);
                    return Ok(fresh);
                }
                Ok(None) | Err(NotLanded::Lost(_)) => {}
                Err(why) => {
                    self.abandon(lease, &why);
                    return Err(why.before_statement(BindEnd::Lost(crate::error::Stage::Acquire)));
                }
            }
            if Instant::now() > hold_until {
                return Err(BindEnd::Refused(errors::no_node("server sessions were lost during the login")));
            }
        }
    }

    /// A fresh session has the global values, but for the character sets that the login chooses.
    async fn ask_globals(&self, lease: &mut Lease, view: &NodeView) -> Result<Option<Fresh>, NotLanded> {
        lease.last_use = None;
        let asks = [Ask::Query(Bytes::from_static(b"SHOW GLOBAL VARIABLES"))];
        let answers = aloft::fly(&self.io.stream, &self.handle, lease, b"", &asks).await?;
        let Some(answer) = answers.first().filter(|a| a.error.is_none()) else { return Ok(None) };
        let (globals, charsets) = setup::read_variables(answer, view);
        Ok(Some(self.cx.pool.set_fresh(view, &self.account, self.capabilities, &globals, charsets)))
    }

    /// A server session in whatever state.
    pub(super) async fn bind_any(&mut self, hold_until: Instant) -> Result<Lease, BindEnd> {
        self.bind(InsertIdNeed::Nothing, hold_until).await
    }

    /// The schema of a login: the node says whether it exists and whether the account may use it.
    async fn enter_schema(&mut self, schema: &Bytes, hold_until: Instant) -> Result<(), BindEnd> {
        if self.lease.is_none() {
            let lease = self.bind_any(hold_until).await?;
            self.bound(lease);
        }
        let Some(lease) = &mut self.lease else { return Err(BindEnd::Lost(crate::error::Stage::Acquire)) };
        lease.last_use = None;
        let asks = [Ask::InitDb(schema.clone())];
        let answers = match aloft::fly(&self.io.stream, &self.handle, lease, b"", &asks).await {
            Ok(answers) => answers,
            Err(why) => {
                if !matches!(why, NotLanded::ClientGone) {
                    self.lose_bound();
                }
                return Err(why.before_statement(BindEnd::Lost(crate::error::Stage::Acquire)));
            }
        };
        if let Some(error) = answers.into_iter().find_map(|a| a.error) {
            return Err(BindEnd::Refused(error));
        }
        lease.state.set_schema(Some(schema));
        self.state.set_schema(Some(schema));
        Ok(())
    }

    /// The client is gone; what runs for it is killed.
    fn login_left(&mut self) -> Result<(), LoginOver> {
        self.end_now();
        Err(LoginOver)
    }

    async fn login_error(&mut self, error: &ErrorReply) -> Result<(), LoginOver> {
        self.cx.measure.failure(crate::error::Side::Server, crate::error::Stage::ClientLogin);
        let mut payload = BytesMut::new();
        encode_err(&mut payload, error, true);
        self.io.queue_packet(&payload);
        let out = std::mem::take(&mut self.io.write_buf);
        // The login is over whether the client hears why or not.
        let _ = self.send(&out).await;
        self.end_now();
        Err(LoginOver)
    }

    /// The OK that ends a login.
    pub(super) async fn login_ok(&mut self) -> Flow {
        let ok = OkPacket {
            affected_rows: 0,
            last_insert_id: 0,
            status: self.status,
            warnings: 0,
            info: b"",
            session_state: b"",
        };
        let mut payload = BytesMut::new();
        ok.encode(&mut payload, self.capabilities, 0);
        self.io.queue_packet(&payload);
        let out = std::mem::take(&mut self.io.write_buf);
        self.send(&out).await
    }
}

impl From<ChangedUser> for Entered {
    fn from(changed: ChangedUser) -> Entered {
        let ChangedUser { account, schema, collation, opening, dedicated, .. } = changed;
        Entered { account, schema, collation, opening, dedicated }
    }
}
