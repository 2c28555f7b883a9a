//! Servers that all tests of one file share: started by the first that asks, stopped by the watchman when the process ends.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::Result;
use crate::servers::{Galera, MariaDb, MySql, SeekDb};

/// One value for the process, made at the first use; a failure to make it is told to everyone who asks.
#[derive(Debug)]
pub struct Shared<T>(OnceLock<std::result::Result<Mutex<T>, String>>);

impl<T> Shared<T> {
    /// Nothing yet.
    pub const fn new() -> Shared<T> {
        Shared(OnceLock::new())
    }

    /// The value, for this test alone until the guard is dropped.
    pub fn get(&'static self, make: impl FnOnce() -> Result<T>) -> Result<MutexGuard<'static, T>> {
        let made = self.0.get_or_init(|| make().map(Mutex::new).map_err(|e| e.to_string()));
        let mutex = made.as_ref().map_err(|e| crate::Error::from(e.clone()))?;
        Ok(mutex.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T> Default for Shared<T> {
    fn default() -> Shared<T> {
        Shared::new()
    }
}

/// One MariaDB server.
pub fn mariadb() -> Result<MutexGuard<'static, MariaDb>> {
    static SERVER: Shared<MariaDb> = Shared::new();
    SERVER.get(MariaDb::start)
}

/// A Galera cluster of three nodes. A test that breaks it must mend it.
pub fn galera() -> Result<MutexGuard<'static, Galera>> {
    static CLUSTER: Shared<Galera> = Shared::new();
    CLUSTER.get(|| Galera::start(3))
}

/// One MySQL 9 server.
pub fn mysql() -> Result<MutexGuard<'static, MySql>> {
    static SERVER: Shared<MySql> = Shared::new();
    SERVER.get(MySql::start)
}

/// One seekdb server.
pub fn seekdb() -> Result<MutexGuard<'static, SeekDb>> {
    static SERVER: Shared<SeekDb> = Shared::new();
    SERVER.get(SeekDb::start)
}
