//! Commands that change what the session is: COM_RESET_CONNECTION, COM_CHANGE_USER, COM_SET_OPTION.

use std::time::Instant;

use crate::pool::flight::{self, Ask};
use crate::protocol::mysql::capability::Capabilities;
use crate::protocol::mysql::flavor::Flavor;
use crate::proxy::bind::BindEnd;
use crate::proxy::cleanup;
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

impl ClientSession {
    /// COM_RESET_CONNECTION: the server session that is bound, or any, is reset, and what it says is the client's new state.
    pub(super) async fn reset_connection(&mut self, head: RequestHead) -> Flow {
        if self.skip_request(head).await == Flow::End {
            return Flow::End;
        }
        self.lost = None;
        let found_rows = self.found_rows_to_keep().await;
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
            self.end_now();
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
                    Err(BindEnd::Refused(error)) => return self.reply_error(&error).await,
                    Err(BindEnd::Lost(_)) => continue,
                },
            };
            let node = lease.node;
            let dedicated = lease.endpoint().is_none();
            // If the reset fails the lease is gone: its pins go off the pool's list while the list can be found.
            self.unbound_from(&lease);
            let Some(lease) = cleanup::reset(&self.cx, lease).await else {
                let role_lost = kept.remove(PinReason::Role) || role_unread;
                kept.remove(PinReason::Xa);
                if role_lost && !dedicated {
                    self.start_over();
                    return self.reply_error(&errors::state_lost(&self.cx.node_name(node), "role")).await;
                }
                if dedicated {
                    return Flow::End;
                }
                self.cx.cluster.suspect(node);
                if Instant::now() > hold_until {
                    return self.reply_error(&errors::no_node("server sessions were lost while they were reset")).await;
                }
                continue;
            };
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

    /// FOUND_ROWS(), which servers keep through a reset, as they keep no message.
    async fn found_rows_to_keep(&mut self) -> Option<u64> {
        if self.pins.contains(PinReason::FoundRows) {
            self.forget_messages();
            self.copy_messages().await;
            self.lost = None;
        }
        self.found_rows
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
        self.lost = None;
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
            let answers = flight::fly(&mut lease.conn, b"", &[Ask::SetOption(u16::from(!on))]).await;
            match answers.ok().and_then(|a| a.into_iter().next()) {
                Some(answer) if answer.error.is_none() => lease.behaviour.set(Capabilities::MULTI_STATEMENTS, on),
                _ => self.lose_bound(),
            }
        }
        self.capabilities.set(Capabilities::MULTI_STATEMENTS, on);
        self.opening.behaviour.set(Capabilities::MULTI_STATEMENTS, on);
        self.reply_eof().await
    }
}
