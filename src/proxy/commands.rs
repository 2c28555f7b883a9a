//! Commands that change what the session is: COM_RESET_CONNECTION, COM_CHANGE_USER, COM_SET_OPTION.

use std::time::Instant;

use bytes::Bytes;

use crate::error::Stage;
use crate::pool::flight::Ask;
use crate::pool::lease::Lease;
use crate::protocol::ErrorReply;
use crate::protocol::mysql::capability::Capabilities;
use crate::protocol::mysql::flavor::Flavor;
use crate::proxy::aloft::{self, NotLanded};
use crate::proxy::bind::BindEnd;
use crate::proxy::errors;
use crate::proxy::registry::InsertId;
use crate::proxy::session::{ClientSession, Flow, LASTING_STATUS};
use crate::proxy::wire::RequestHead;
use crate::session::diagnostics::Messages;
use crate::session::held::Held;
use crate::session::next_transaction::Pending;
use crate::session::pins::{PinReason, Pins};
use crate::session::state::SessionState;
use crate::session::transaction::Transaction;
use crate::topology::NodeId;

impl ClientSession {
    /// COM_RESET_CONNECTION: the server session that is bound, or any, is reset, and what it says is the client's new state.
    pub(super) async fn reset_connection(&mut self, head: RequestHead) -> Flow {
        if self.skip_request(head).await == Flow::End {
            return Flow::End;
        }
        if self.pins.contains(PinReason::FoundRows) {
            // Servers keep it through a reset, as they keep no message.
            self.forget_messages();
            if Box::pin(self.copy_messages()).await == Flow::End {
                return Flow::End;
            }
        }
        let found_rows = self.found_rows;
        let hold_until = Instant::now() + self.cx.hold_timeout;
        let role_unread = self.pins.contains(PinReason::UnreadRole);
        let role = self.state.role().cloned();
        let mut kept = Pins::NONE;
        for reason in [PinReason::LoginNotRecorded, PinReason::Role] {
            // A role outlives the reset on MariaDB, and must go on to be this client's alone.
            if self.pins.contains(reason) {
                kept.insert(reason);
            }
        }
        if self.another_is_better() {
            self.give_up_for_reset();
        } else if self.pins.contains(PinReason::Xa) {
            // MariaDB breaks a session that is reset on top of a prepared XA transaction: it stays this client's, and is closed after it.
            kept.insert(PinReason::Xa);
        }
        loop {
            let lease = match self.lease.take() {
                Some(lease) => lease,
                None => match self.bind_any(hold_until).await {
                    Ok(lease) => lease,
                    Err(BindEnd::ClientGone) => return Flow::End,
                    Err(BindEnd::Refused(error)) => return self.not_reset(error).await,
                    Err(BindEnd::Lost(_)) => continue,
                },
            };
            let node = lease.node;
            let dedicated = lease.endpoint().is_none();
            // If the reset fails the lease is gone, and what it held must be told: its pins go off the pool's list while the list can be found.
            self.note_lost(&lease, Stage::Clean);
            self.unbound_from(&lease);
            let lease = match self.reset_for_client(lease).await {
                Ok(lease) => lease,
                Err(why) => {
                    let role_lost = kept.remove(PinReason::Role) || role_unread;
                    kept.remove(PinReason::Xa);
                    if let Some(flow) = self.reset_failed(node, dedicated, role_lost, &why).await {
                        return flow;
                    }
                    if Instant::now() > hold_until {
                        let error = errors::no_node("server sessions were lost while they were reset");
                        return self.not_reset(error).await;
                    }
                    continue;
                }
            };
            self.becomes_fresh(&lease, role, role_unread);
            self.bound(lease);
            self.start_over();
            self.found_rows = found_rows;
            self.set_idle_limit();
            if kept.contains(PinReason::Xa) {
                self.held = Some(Box::new(Held::reset_in_xa()));
            }
            self.set_pins(kept);
            return self.reply_ok().await;
        }
    }

    /// What the client believes after a reset: what the server session is in.
    fn becomes_fresh(&mut self, lease: &Lease, role: Option<Bytes>, role_unread: bool) {
        let schema = self.state.schema().cloned();
        // MariaDB goes back to the character sets of the login, which was belay's own; MySQL to the global ones.
        let charsets = match lease.conn.flavor {
            Flavor::MariaDb => self.login_charsets.clone(),
            Flavor::MySql | Flavor::OceanBase => lease.state.charsets().clone(),
        };
        self.state = SessionState::new(lease.state.baseline().clone(), charsets, schema);
        // Both MariaDB and MySQL keep the role through the reset; OceanBase goes back to that of a login.
        self.state.set_role(if role_unread || lease.conn.flavor == Flavor::OceanBase {
            lease.state.role().or(lease.state.login_role()).cloned()
        } else {
            role
        });
        self.status = lease.conn.status & LASTING_STATUS;
    }

    /// Gives up the bound server session for another one. Should the reset fail, what went with it is told in its place.
    fn give_up_for_reset(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.note_lost(&lease, Stage::Clean);
            self.lease = Some(lease);
        }
        self.end_now();
    }

    /// The reset did not happen. What was given up for it, or lost before it, weighs more than why.
    async fn not_reset(&mut self, why: ErrorReply) -> Flow {
        let error = self.tell_lost().unwrap_or(why);
        self.reply_error(&error).await
    }

    /// What a reset that did not succeed leads to; `None`: it is to be tried on another server session.
    async fn reset_failed(&mut self, node: NodeId, dedicated: bool, role_lost: bool, why: &NotLanded) -> Option<Flow> {
        if dedicated || matches!(why, NotLanded::ClientGone) {
            return Some(Flow::End);
        }
        if role_lost {
            let error = errors::state_lost(&self.cx.node_name(node), "role", self.lost.transaction_lost());
            self.start_over();
            return Some(self.reply_error(&error).await);
        }
        if matches!(why, NotLanded::Interrupted) {
            return Some(self.not_reset(errors::interrupted_before()).await);
        }
        self.cx.cluster.suspect(node);
        None
    }

    /// Whether a reset is better done on another server session: a KILL may still arrive at the bound one, or it keeps what no reset takes away.
    fn another_is_better(&self) -> bool {
        let Some(lease) = &self.lease else { return false };
        let role = self.pins.contains(PinReason::Role) || self.pins.contains(PinReason::UnreadRole);
        if lease.endpoint().is_none() || role {
            return false;
        }
        let running = self.handle.running();
        running.tainted || running.kills_in_flight > 0 || self.pins.survives_reset(lease.conn.flavor)
    }

    /// What a reset and a change of user have in common.
    pub(super) fn start_over(&mut self) {
        self.transaction = Transaction::Idle;
        self.statements.clear();
        self.text_statements.clear();
        self.names_uncertain = false;
        self.row_count = 0;
        self.messages = Messages::None;
        self.found_rows = Some(0);
        self.found_rows_here = false;
        // MariaDB forgets it with a reset (observed).
        self.last_gtid = None;
        self.lost.void();
        self.next_transaction = Pending::Nothing;
        *self.handle.insert_id() = InsertId::Zero;
        self.set_pins(Pins::NONE);
        self.refresh_notes();
    }

    /// COM_CHANGE_USER: a new login on the same connection; nothing of the old one stays.
    pub(super) async fn change_user(&mut self, head: RequestHead) -> Flow {
        if !head.complete {
            return Flow::End;
        }
        let payload = self.take_payload(head);
        self.io.seq = 1;
        self.end_now();
        self.start_over();
        let login = self.cx.login.clone();
        let changed = crate::proxy::client_login::change_user(
            &mut self.io,
            &payload,
            &login,
            self.handle.id,
            self.host,
            self.capabilities,
        )
        .await;
        let Ok(changed) = changed else { return Flow::End };
        let Ok(()) = self.enter(changed.into()).await else { return Flow::End };
        self.login_ok().await
    }

    /// COM_SET_OPTION: several statements in one COM_QUERY, on or off.
    pub(super) async fn set_option(&mut self, head: RequestHead) -> Flow {
        let payload = self.take_payload(head);
        let option = payload.get(1..3).and_then(|b| <[u8; 2]>::try_from(b).ok()).map(u16::from_le_bytes);
        let on = match option {
            Some(0) => true,
            Some(1) => false,
            _ => return self.reply_error(&errors::unknown_command()).await,
        };
        if let Some(lease) = &mut self.lease {
            let asks = [Ask::SetOption(u16::from(!on))];
            let answers = match aloft::fly(&self.io.stream, &self.handle, lease, b"", &asks).await {
                Err(NotLanded::ClientGone) => return Flow::End,
                answers => answers,
            };
            let answers = answers.unwrap_or_default();
            if answers.first().is_some_and(|answer| answer.error.is_none()) {
                lease.behaviour.set(Capabilities::MULTI_STATEMENTS, on);
                self.take_held_back(&answers);
            } else {
                self.lose_bound();
            }
        }
        self.capabilities.set(Capabilities::MULTI_STATEMENTS, on);
        self.opening.behaviour.set(Capabilities::MULTI_STATEMENTS, on);
        self.reply_eof().await
    }
}
