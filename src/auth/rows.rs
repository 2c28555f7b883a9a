//! Accounts from the rows of the servers' own tables: MariaDB's `mysql.global_priv`, MySQL's `mysql.user`, OceanBase's
//! `oceanbase.__all_user`.

use serde_json::Value;

use super::accounts::{Account, AccountKey, Method, TlsRequirement};

/// Reads the accounts of MariaDB 10.4 and later.
pub const MARIADB_QUERY: &str = "SELECT User, Host, Priv FROM mysql.global_priv";

/// Reads the accounts of MySQL 8 and later.
pub const MYSQL_QUERY: &str = "SELECT u.User, u.Host, u.plugin, u.authentication_string, u.account_locked, \
     u.password_expired, u.ssl_type, u.Super_priv = 'Y' OR EXISTS (SELECT 1 FROM mysql.global_grants g WHERE g.USER = u.User \
     AND g.HOST = u.Host AND g.PRIV = 'CONNECTION_ADMIN'), u.User_attributes FROM mysql.user u";

/// Reads the accounts of servers with MySQL 5.7's table.
pub const MYSQL57_QUERY: &str = "SELECT User, Host, plugin, authentication_string, account_locked, password_expired, \
     ssl_type, Super_priv = 'Y', NULL FROM mysql.user";

/// Reads the accounts of OceanBase, in the columns of [`MYSQL57_QUERY`]: its `mysql.user` shows no passwords. They are those of
/// `mysql_native_password` under another name; roles are accounts of another type. TLS is asked for by numbers: 0 and 1 none, 2 any, then certificates.
pub const OCEANBASE_QUERY: &str = "SELECT user_name, host, 'mysql_native_password', passwd, IF(is_locked = 0, 'N', 'Y'), 'N', \
     CASE ssl_type WHEN 0 THEN '' WHEN 1 THEN '' WHEN 2 THEN 'ANY' ELSE 'X509' END, priv_super = 1, NULL \
     FROM oceanbase.__all_user WHERE type = 0";

/// MariaDB's access bit of SUPER.
const MARIADB_SUPER: u64 = 1 << 15;
/// MariaDB's access bit of CONNECTION ADMIN, since 10.5 (observed on 10.11).
const MARIADB_CONNECTION_ADMIN: u64 = 1 << 32;
/// Since 11.0.1 SUPER no longer holds CONNECTION ADMIN; an older row's SUPER still does.
const MARIADB_SUPER_WITHOUT_ADMIN: u64 = 110_001;

/// One row as the text protocol gives it.
pub type Row<'a> = [Option<&'a [u8]>];

/// What is wrong with a row.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RowError {
    /// It has too few columns, or NULL where a text belongs.
    #[error("a row of accounts lacks column {0}")]
    Missing(&'static str),
    /// A name is not UTF-8, or the JSON of MariaDB can't be read.
    #[error("a row of accounts has an unreadable {0}")]
    Unreadable(&'static str),
}

fn bytes<'a>(row: &Row<'a>, at: usize, what: &'static str) -> Result<&'a [u8], RowError> {
    row.get(at).copied().flatten().ok_or(RowError::Missing(what))
}

fn text<'a>(row: &Row<'a>, at: usize, what: &'static str) -> Result<&'a str, RowError> {
    std::str::from_utf8(bytes(row, at, what)?).map_err(|_| RowError::Unreadable(what))
}

/// An account from a row of [`MARIADB_QUERY`]; `None` for a role.
pub fn mariadb_account(row: &Row<'_>) -> Result<Option<Account>, RowError> {
    let id = AccountKey::new(text(row, 0, "User")?, text(row, 1, "Host")?);
    let json = bytes(row, 2, "Priv")?;
    let doc: Value = serde_json::from_slice(json).map_err(|_| RowError::Unreadable("Priv"))?;
    if doc.get("is_role").and_then(Value::as_bool) == Some(true) {
        return Ok(None);
    }
    let plugin_of = |v: &Value| v.get("plugin").and_then(Value::as_str).unwrap_or("").to_owned();
    let stored_of = |v: &Value| v.get("authentication_string").and_then(Value::as_str).unwrap_or("").to_owned();
    let own = (plugin_of(&doc), stored_of(&doc));
    // In `auth_or` an empty object stands for the plugin at the top of the document.
    let pairs: Vec<(String, String)> = match doc.get("auth_or").and_then(Value::as_array) {
        Some(list) => list
            .iter()
            .map(|v| if v.get("plugin").is_some() { (plugin_of(v), stored_of(v)) } else { own.clone() })
            .collect(),
        None => vec![own],
    };
    let methods = pairs.iter().map(|(p, s)| match p.as_str() {
        "" => Method::parse(super::NATIVE, s.as_bytes()),
        p => Method::parse(p, s.as_bytes()),
    });
    let stored: Vec<&[u8]> = pairs.iter().flat_map(|(p, s)| [p.as_bytes(), s.as_bytes()]).collect();
    let mut account = Account::new(id, methods.collect(), &stored);
    let access = doc.get("access").and_then(Value::as_u64).unwrap_or(0);
    let version = doc.get("version_id").and_then(Value::as_u64).unwrap_or(0);
    account.may_kill_others =
        access & MARIADB_CONNECTION_ADMIN != 0 || version < MARIADB_SUPER_WITHOUT_ADMIN && access & MARIADB_SUPER != 0;
    account.locked = doc.get("account_locked").and_then(Value::as_bool).unwrap_or(false);
    account.password_expired = doc.get("password_last_changed").and_then(Value::as_i64) == Some(0);
    account.tls = match doc.get("ssl_type").and_then(Value::as_u64) {
        None | Some(0) => TlsRequirement::None,
        Some(1) => TlsRequirement::Any,
        Some(_) => TlsRequirement::Certificate,
    };
    Ok(Some(account))
}

/// An account from a row of [`MYSQL_QUERY`], [`MYSQL57_QUERY`] or [`OCEANBASE_QUERY`].
pub fn mysql_account(row: &Row<'_>) -> Result<Account, RowError> {
    let id = AccountKey::new(text(row, 0, "User")?, text(row, 1, "Host")?);
    let plugin = text(row, 2, "plugin")?;
    let stored = row.get(3).copied().flatten().unwrap_or(b"");
    let plugin = if plugin.is_empty() { super::NATIVE } else { plugin };
    let mut methods = vec![Method::parse(plugin, stored)];
    let attributes: Option<Value> = row.get(8).copied().flatten().and_then(|b| serde_json::from_slice(b).ok());
    let additional =
        attributes.as_ref().and_then(|v| v.get("additional_password")).and_then(Value::as_str).unwrap_or("").to_owned();
    // RETAIN CURRENT PASSWORD: the old password is still good.
    if !additional.is_empty() {
        methods.push(Method::parse(plugin, additional.as_bytes()));
    }
    let mut account = Account::new(id, methods, &[plugin.as_bytes(), stored, additional.as_bytes()]);
    let is = |at: usize, yes: &[u8]| row.get(at).copied().flatten().is_some_and(|v| v.eq_ignore_ascii_case(yes));
    account.locked = is(4, b"Y");
    account.password_expired = is(5, b"Y");
    account.tls = match row.get(6).copied().flatten() {
        None | Some(b"") => TlsRequirement::None,
        Some(b"ANY") => TlsRequirement::Any,
        Some(_) => TlsRequirement::Certificate,
    };
    account.may_kill_others = is(7, b"1");
    Ok(account)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::accounts::Verifier;

    fn mariadb(json: &str) -> Option<Account> {
        mariadb_account(&[Some(b"u"), Some(b"%"), Some(json.as_bytes())]).unwrap()
    }

    #[test]
    fn mariadb_documents_are_read() {
        let a = mariadb(
            r#"{"access":549755813887,"plugin":"mysql_native_password","authentication_string":"*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19","password_last_changed":1700000000}"#,
        )
        .unwrap();
        assert!(matches!(a.methods[0].verifier, Verifier::Native(_)));
        assert!(a.may_kill_others && !a.locked && !a.password_expired);
        let a = mariadb(r#"{"access":0,"plugin":"mysql_native_password","authentication_string":"invalid","auth_or":[{},{"plugin":"unix_socket"}]}"#)
            .unwrap();
        assert_eq!(a.methods.len(), 2);
        assert!(a.methods.iter().all(|m| m.verifier == Verifier::Other));
        // As 10.11 writes it for ALTER USER … PASSWORD EXPIRE and GRANT CONNECTION ADMIN.
        let a = mariadb(r#"{"access":4294967296,"version_id":101119,"plugin":"mysql_native_password","authentication_string":"*33E0B212CC71ADACB7017A3790B8D662986E504B","password_last_changed":0,"password_lifetime":-1}"#)
            .unwrap();
        assert!(a.password_expired && a.may_kill_others);
        // IDENTIFIED VIA unix_socket OR mysql_native_password.
        let a = mariadb(r#"{"access":0,"plugin":"mysql_native_password","authentication_string":"*7446F64EFCFB1294A6DE20CAE7E49C2377A9AA25","auth_or":[{"plugin":"unix_socket"},{}]}"#)
            .unwrap();
        assert_eq!(a.methods[0].verifier, Verifier::Other);
        assert!(a.methods[1].is_checkable());
        assert!(mariadb("{}").unwrap().methods[0].verifier == Verifier::Empty);
        assert!(mariadb(r#"{"access":0,"is_role":true}"#).is_none());
        assert!(mariadb(r#"{"access":0,"account_locked":true,"ssl_type":1}"#).unwrap().locked);
        assert!(mariadb_account(&[Some(b"u"), Some(b"%"), Some(b"{")]).is_err());
        assert!(mariadb_account(&[Some(b"u")]).is_err());
    }

    #[test]
    fn mysql_rows_are_read() {
        let row: [Option<&[u8]>; 9] = [
            Some(b"u"),
            Some(b"%"),
            Some(b"mysql_native_password"),
            Some(b"*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19"),
            Some(b"N"),
            Some(b"Y"),
            Some(b"ANY"),
            Some(b"1"),
            Some(br#"{"additional_password":"*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19"}"#),
        ];
        let a = mysql_account(&row).unwrap();
        assert_eq!(a.methods.len(), 2);
        assert!(a.password_expired && a.may_kill_others && !a.locked);
        assert_eq!(a.tls, TlsRequirement::Any);
        let mut changed = row;
        changed[3] = Some(b"*0000C0C06DEE42FD1618BB99005ADCA2EC9D1E19");
        assert_ne!(mysql_account(&changed).unwrap().fingerprint, a.fingerprint);
    }
}
