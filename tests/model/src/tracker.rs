//! Session tracking: what has changed and is to be reported with the next OK.

use crate::vars::Id;
use crate::wire::put_string;

/// What is tracked, and what waits to be told.
#[derive(Clone, Debug)]
pub(crate) struct Tracker {
    pub all: bool,
    pub names: Vec<Id>,
    pub schema: bool,
    pub state: bool,
    /// 0 off, 1 state, 2 with characteristics.
    pub transaction: u8,
    variables: Vec<Id>,
    schema_changed: bool,
    state_changed: bool,
    /// MySQL counts some statements as changes without having anything to tell.
    pub empty_change: bool,
    characteristics_changed: bool,
    /// The state of the transaction as it is and as it was told last.
    now: [u8; 8],
    told: [u8; 8],
    /// Something was marked by the statement that runs now.
    pub marked: bool,
    /// MySQL, after COM_RESET_CONNECTION: only beginning and end are told.
    pub after_reset: bool,
    /// START TRANSACTION WITH CONSISTENT SNAPSHOT was said.
    pub snapshot: bool,
}

const NOTHING: [u8; 8] = *b"________";

/// Places in the state of a transaction.
pub(crate) mod place {
    pub const READ: (usize, u8) = (2, b'R');
    pub const READ_UNSAFE: (usize, u8) = (1, b'r');
    pub const WRITE: (usize, u8) = (4, b'W');
    pub const RESULT: (usize, u8) = (6, b'S');
}

impl Tracker {
    pub fn new() -> Tracker {
        Tracker {
            all: false,
            names: Vec::new(),
            schema: true,
            state: false,
            transaction: 0,
            variables: Vec::new(),
            schema_changed: false,
            state_changed: false,
            empty_change: false,
            characteristics_changed: false,
            now: NOTHING,
            told: NOTHING,
            marked: false,
            after_reset: false,
            snapshot: false,
        }
    }

    /// Which variables are reported, by the value of session_track_system_variables. Names that the model does not have never are.
    pub fn track(&mut self, dialect: crate::Dialect, text: &str) {
        let names = text.split(',').map(|n| n.trim().to_ascii_lowercase());
        self.all = names.clone().any(|n| n == "*");
        self.names = names.filter_map(|n| crate::vars::find(dialect, &n).ok()).collect();
    }

    /// Whether changes of the SQL mode are told, and those that MySQL makes for itself are counted.
    pub fn tracks_mode(&self) -> bool {
        self.all || self.names.contains(&Id::SqlMode)
    }

    pub fn variable(&mut self, id: Id) {
        if self.all || self.names.contains(&id) {
            self.marked = true;
            if !self.variables.contains(&id) {
                self.variables.push(id);
            }
        }
    }

    pub fn schema(&mut self) {
        self.schema_changed |= self.schema;
        self.marked |= self.schema;
    }

    pub fn state(&mut self) {
        self.state_changed |= self.state;
        self.marked |= self.state;
    }

    /// Tracking of transactions was set: MariaDB tells where it stands, MySQL what restores it.
    pub fn restart_transaction(&mut self, maria: bool) {
        self.characteristics();
        if maria {
            self.told = [0; 8];
        }
    }

    /// State changes are not tracked any more.
    pub fn forget_state(&mut self, forget: bool) {
        self.state_changed &= !forget;
    }

    pub fn characteristics(&mut self) {
        self.characteristics_changed |= self.transaction == 2;
        self.marked |= self.transaction == 2;
    }

    pub fn begin(&mut self, explicit: bool) {
        let snapshot = self.snapshot;
        if !explicit && self.now[0] != b'_' {
            return;
        }
        let locked = self.now[7];
        self.now = NOTHING;
        self.now[7] = locked;
        if snapshot && explicit {
            self.now[place::READ.0] = place::READ.1;
        }
        self.now[0] = if explicit { b'T' } else { b'I' };
        self.marked |= self.transaction > 0;
    }

    pub fn add(&mut self, (at, mark): (usize, u8)) {
        if !self.after_reset && self.now[0] != b'_' {
            self.now[at] = mark;
        }
        // What a statement that failed has left is told here too.
        self.marked |= self.transaction > 0 && (self.now != self.told || self.characteristics_changed);
    }

    pub fn end(&mut self) {
        if self.now[0] != b'_' {
            let locked = self.now[7];
            self.now = NOTHING;
            self.now[7] = locked;
        }
        self.marked |= self.transaction > 0 && (self.now != self.told || self.characteristics_changed);
    }

    pub fn lock(&mut self, locked: bool) {
        self.now[7] = if locked { b'L' } else { b'_' };
        self.marked |= self.transaction > 0 && self.now != self.told;
    }

    /// The block of changes, which are told with it. `sticky`: MySQL tells what is left from statements that failed; MariaDB tells it together with
    /// the next change.
    pub fn take(
        &mut self,
        sticky: bool,
        schema: &str,
        characteristics: &str,
        value: impl Fn(Id) -> Vec<u8>,
    ) -> Option<Vec<u8>> {
        let transaction = self.transaction > 0 && self.now != self.told;
        let any = !self.variables.is_empty()
            || self.schema_changed
            || self.state_changed
            || self.characteristics_changed
            || transaction
            || self.empty_change;
        if !any || !(sticky || self.marked || self.empty_change) {
            return None;
        }
        let mut block = Vec::new();
        for id in std::mem::take(&mut self.variables) {
            let mut one = Vec::new();
            put_string(&mut one, id.var().name.as_bytes());
            put_string(&mut one, &value(id));
            block.push(0);
            put_string(&mut block, &one);
        }
        let mut put = |kind: u8, text: &[u8]| {
            let mut one = Vec::new();
            put_string(&mut one, text);
            block.push(kind);
            put_string(&mut block, &one);
        };
        if std::mem::take(&mut self.schema_changed) {
            put(1, schema.as_bytes());
        }
        if std::mem::take(&mut self.state_changed) {
            block.extend_from_slice(&[2, 1, b'1']);
        }
        let mut put = |kind: u8, text: &[u8]| {
            let mut one = Vec::new();
            put_string(&mut one, text);
            block.push(kind);
            put_string(&mut block, &one);
        };
        if std::mem::take(&mut self.characteristics_changed) {
            put(4, characteristics.as_bytes());
        }
        if transaction {
            self.told = self.now;
            let now = self.now;
            put(5, &now);
        }
        self.empty_change = false;
        self.marked = false;
        Some(block)
    }
}
