//! Prepared statements, by text and by the binary protocol.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Flow, Made, Place, Run};
use crate::ast::{Expr, Item, Parsed, Select, Stmt};
use crate::error::{Error, unsupported};
use crate::session::Prepared;
use crate::value::Value;
use crate::wire::{ColumnDef, caps, types};

impl Run<'_> {
    fn unknown(&self, name: &str, place: &str) -> Flow {
        Error::new(1243, "HY000", format!("Unknown prepared statement handler ({name}) given to {place}")).into()
    }

    /// Reads a text and looks at what it names, as PREPARE does.
    fn prepared(&mut self, text: &str) -> Made<Prepared> {
        let parsed = self.c.parse(text, self.s.modes, false)?;
        if parsed.stmt == Stmt::Empty {
            return Err(Error::new(1065, "42000", "Query was empty").into());
        }
        if !self.is_maria() {
            let refused = matches!(
                parsed.stmt,
                Stmt::Begin { .. }
                    | Stmt::Use(_)
                    | Stmt::Savepoint(_)
                    | Stmt::RollbackTo(_)
                    | Stmt::ReleaseSavepoint(_)
                    | Stmt::ShowDiagnostics { .. }
                    | Stmt::Signal(..)
                    | Stmt::LockTables(_)
                    | Stmt::UnlockTables
            );
            if refused {
                let text = "This command is not supported in the prepared statement protocol yet";
                return Err(Error::new(1295, "HY000", text).into());
            }
        }
        if matches!(
            parsed.stmt,
            Stmt::Prepare(..) | Stmt::Execute(..) | Stmt::ExecuteImmediate(..) | Stmt::Deallocate(_)
        ) {
            let text = "This command is not supported in the prepared statement protocol yet";
            return Err(Error::new(1295, "HY000", text).into());
        }
        if matches!(
            parsed.stmt,
            Stmt::CreateRoutine { .. } | Stmt::DropRoutine { .. } | Stmt::LockTables(_) | Stmt::Kill { .. }
        ) {
            return self.unsupported("this statement prepared");
        }
        if let (Stmt::Call(name, _), false) = (&parsed.stmt, self.is_maria()) {
            self.procedure(name)?;
        }
        let stmt_of = parsed.clone();
        Ok(Prepared {
            parsed,
            schema: self.s.schema.clone(),
            types: None,
            long_data: BTreeMap::new(),
            bad_long_data: false,
            cursor: None,
            had_cursor: false,
            first_types: BTreeMap::new(),
            variables: self.variables_named(&stmt_of.stmt),
        })
    }

    /// The user variables that a statement reads, and of what kind they are.
    fn variables_named(&self, stmt: &Stmt) -> Vec<(Arc<str>, u8)> {
        let mut named = Vec::new();
        if !self.is_maria() {
            super::each_expr(stmt, &mut |expr| {
                if let Expr::UserVar(name) = expr {
                    named.push((name.clone(), kind(self.s.user_vars.get(name))));
                }
            });
        }
        named
    }

    /// MySQL gives a variable the type that it had when the statement was prepared.
    fn check_variables(&self, stmt: &Stmt, before: &[(Arc<str>, u8)]) -> Made<()> {
        if self.variables_named(stmt) == *before {
            Ok(())
        } else {
            self.unsupported("a variable of another type than at PREPARE")
        }
    }

    /// The columns that a prepared statement will have; errors in what it names are told here.
    fn prepared_heads(&mut self, parsed: &Parsed) -> Made<Vec<ColumnDef>> {
        self.params = Vec::new();
        match &parsed.stmt {
            Stmt::Select(select) if select.into.is_empty() => self.select_heads(select),
            Stmt::Select(select) => self.select_heads(select).map(|_| Vec::new()),
            Stmt::Insert(insert) => {
                let name = self.find_name(&insert.table)?;
                let def = self.need_table(&name)?;
                self.check_prepare(&name, true)?;
                self.c.place_word = "INSERT INTO";
                for column in insert.columns.iter().flatten() {
                    def.find(column).ok_or_else(|| self.unknown_column(None, column))?;
                }
                self.heads(&insert.returning, Some((&name.0, &name.1, &def)))
            }
            Stmt::Update { table, .. } | Stmt::Delete { table, .. } => {
                let name = self.find_name(table)?;
                self.need_table(&name)?;
                self.check_prepare(&name, true)?;
                Ok(Vec::new())
            }
            Stmt::ShowVariables { .. } => self.unsupported("SHOW prepared by the binary protocol"),
            _ => Ok(Vec::new()),
        }
    }

    fn select_heads(&mut self, select: &Select) -> Made<Vec<ColumnDef>> {
        self.c.place_word = "SELECT";
        let Some(table) = &select.from else { return self.heads(&select.items, None) };
        let name = self.find_name(table)?;
        if self.c.nodes[self.s.node].store.routines.contains_key(&("VIEW", name.clone())) {
            return self.unsupported("a prepared statement over a view");
        }
        let def = self.need_table(&name)?;
        self.check_prepare(&name, select.for_update)?;
        let heads = self.heads(&select.items, Some((&name.0, &name.1, &def)))?;
        if let Some(filter) = &select.filter {
            self.c.place_word = "WHERE";
            self.type_of(filter, Some(&def))?;
        }
        Ok(heads)
    }

    pub(super) fn prepare_named(&mut self, name: &Arc<str>, text: &Expr) -> Made<()> {
        let text = self.eval(text)?;
        let key: Arc<str> = name.to_ascii_lowercase().into();
        self.s.named.remove(&key);
        let text = if text.is_null() { "NULL".to_owned() } else { text.string() };
        let made = self.prepared(&text)?;
        if super::uses_tables(&made.parsed.stmt) || matches!(made.parsed.stmt, Stmt::Call(..)) {
            self.s.diagnostics.clear();
            self.s.stale = false;
        }
        self.prepared_heads(&made.parsed.clone())?;
        self.s.named.insert(key, made);
        self.s.tracker.state();
        self.end_statement();
        self.ok(0, 0, "Statement prepared");
        Ok(())
    }

    pub(super) fn deallocate(&mut self, name: &Arc<str>) -> Made<()> {
        let key = name.to_ascii_lowercase();
        if self.s.named.remove(key.as_str()).is_none() {
            return Err(self.unknown(name, "DEALLOCATE PREPARE"));
        }
        self.s.tracker.state();
        self.done()
    }

    pub(super) fn execute_named(&mut self, name: &Arc<str>, using: &[Expr]) -> Made<()> {
        let key = name.to_ascii_lowercase();
        let Some(prepared) = self.s.named.get(key.as_str()) else { return Err(self.unknown(name, "EXECUTE")) };
        let (parsed, schema, named) = (prepared.parsed.clone(), prepared.schema.clone(), prepared.variables.clone());
        self.check_variables(&parsed.stmt, &named)?;
        let params = using.iter().map(|e| self.eval(e)).collect::<Made<Vec<_>>>()?;
        self.run_prepared(&parsed, schema, params)
    }

    pub(super) fn execute_immediate(&mut self, text: &Expr, using: &[Expr]) -> Made<()> {
        let text = self.eval(text)?.string();
        let params = using.iter().map(|e| self.eval(e)).collect::<Made<Vec<_>>>()?;
        let made = self.prepared(&text)?;
        self.small_params = using.iter().any(|e| matches!(e, Expr::Lit(_)));
        self.run_prepared(&made.parsed.clone(), made.schema, params)
    }

    fn run_prepared(&mut self, parsed: &Parsed, schema: Option<Arc<str>>, params: Vec<Value>) -> Made<()> {
        if !self.is_maria() && params.iter().any(Value::is_null) && matches!(parsed.stmt, Stmt::Select(_)) {
            return self.unsupported("a parameter that is NULL on MySQL");
        }
        if params.len() != parsed.params {
            return Err(Error::new(1210, "HY000", "Incorrect arguments to EXECUTE").into());
        }
        if schema != self.s.schema {
            return self.unsupported("EXECUTE under another schema than PREPARE");
        }
        if self.place != Place::Top {
            return self.unsupported("EXECUTE in a routine");
        }
        if super::uses_tables(&parsed.stmt) {
            self.s.diagnostics.clear();
            self.s.stale = false;
        }
        let outer = std::mem::replace(&mut self.params, params);
        let made = self.exec(&parsed.stmt);
        self.small_params = false;
        self.params = outer;
        made
    }

    /// COM_STMT_PREPARE.
    pub(crate) fn com_prepare(&mut self, text: &str) -> Made<()> {
        self.s.own_conditions = 0;
        // The number is used up even if the text is refused.
        self.s.next_statement += 1;
        let id = self.s.next_statement;
        if self.is_maria() {
            self.s.stale = true;
        } else {
            self.s.before = self.s.counts();
            self.s.diagnostics.clear();
        }
        let made = self.prepared(text)?;
        let parsed = made.parsed.clone();
        if self.is_maria() && (super::uses_tables(&parsed.stmt) || matches!(parsed.stmt, Stmt::Call(..))) {
            self.s.diagnostics.clear();
            self.s.stale = false;
        }
        let heads = self.prepared_heads(&parsed)?;
        self.deprecated(&parsed.stmt);
        let mut p = vec![0];
        p.extend_from_slice(&id.to_le_bytes());
        p.extend_from_slice(&(heads.len() as u16).to_le_bytes());
        p.extend_from_slice(&(parsed.params as u16).to_le_bytes());
        p.push(0);
        p.extend_from_slice(&self.s.own_conditions.to_le_bytes());
        self.out.push(p);
        let ty = if self.is_maria() { types::NULL } else { types::VAR_STRING };
        let param = super::types::Ty { ty, length: 0, unsigned: false, decimals: 0 };
        let param = self.head("?", param);
        for (count, packets) in [(parsed.params, vec![param; parsed.params]), (heads.len(), heads)] {
            self.out.extend(packets.iter().map(ColumnDef::packet));
            if count > 0 && self.s.caps & caps::DEPRECATE_EOF == 0 {
                let end = self.plain_end(0);
                self.out.push(end);
            }
        }
        self.s.prepared.insert(id, made);
        self.end_statement();
        Ok(())
    }

    /// COM_STMT_EXECUTE.
    pub(crate) fn com_execute(&mut self, body: &[u8]) -> Made<()> {
        let id = u32_at(body, 0);
        let (place, precheck) = ("mysqld_stmt_execute", "mysql_stmt_precheck");
        let place = if self.is_maria() { place } else { precheck };
        let wrong = |place: &str| Flow::Error(Error::new(1210, "HY000", format!("Incorrect arguments to {place}")));
        let id = if id == u32::MAX && self.is_maria() { self.s.next_statement } else { id };
        let Some(prepared) = self.s.prepared.get_mut(&id) else { return Err(self.unknown(&id.to_string(), place)) };
        prepared.cursor = None;
        if prepared.had_cursor && !self.s.dialect.is_maria() && body.get(4) == Some(&0) {
            // MySQL never finishes its answer then.
            return self.unsupported("an execution without a cursor of a statement that had one");
        }
        prepared.had_cursor |= body.get(4) == Some(&1);
        let Some(prepared) = self.s.prepared.get_mut(&id) else { return Err(self.unknown(&id.to_string(), place)) };
        if prepared.bad_long_data {
            return Err(wrong(if self.s.dialect.is_maria() { "mysqld_stmt_send_long_data" } else { precheck }));
        }
        let count = prepared.parsed.params;
        let flags = body.get(4).copied().unwrap_or(0);
        let params = match read_params(prepared, body, count) {
            Some(params) => params,
            None if self.s.dialect.is_maria() => return Err(wrong("mysqld_stmt_execute")),
            None => return Err(Error::new(1835, "HY000", "Malformed communication packet.").into()),
        };
        prepared.long_data.clear();
        let (parsed, schema, named) = (prepared.parsed.clone(), prepared.schema.clone(), prepared.variables.clone());
        self.check_variables(&parsed.stmt, &named)?;
        if schema != self.s.schema {
            return self.unsupported("an execution under another schema than that of the preparation");
        }
        if !self.is_maria() {
            self.check_types(id, &parsed, &params)?;
        }
        self.params = params;
        self.binary = true;
        self.cursor = flags & 1 != 0 && matches!(&parsed.stmt, Stmt::Select(s) if s.into.is_empty());
        let made = self.statement(&parsed);
        self.binary = false;
        self.cursor = false;
        if let (Ok(()), Some(cursor)) = (&made, self.c.open_cursor.take())
            && let Some(prepared) = self.s.prepared.get_mut(&id)
        {
            prepared.cursor = Some(cursor);
        }
        made
    }

    /// MySQL keeps the types that parameters had first, and converts what comes later.
    fn check_types(&mut self, id: u32, parsed: &Parsed, params: &[Value]) -> Made<()> {
        let Stmt::Select(select) = &parsed.stmt else { return Ok(()) };
        if params.iter().any(Value::is_null) {
            // It has the type of the value before it.
            return Err(unsupported("a parameter that is NULL on MySQL").into());
        }
        let mut direct = vec![false; params.len()];
        for item in &select.items {
            match item {
                Item::Expr { expr: Expr::Param(at), .. } => direct[*at] = true,
                Item::Expr { expr, .. } => {
                    let mut inside = false;
                    let stmt = Stmt::Do(vec![expr.clone()]);
                    super::each_expr(&stmt, &mut |e| inside |= matches!(e, Expr::Param(_)));
                    let text = params.iter().any(|p| matches!(p, Value::Str(_)));
                    if inside && text {
                        return Err(unsupported("a string parameter within an expression on MySQL").into());
                    }
                }
                Item::Star => {}
            }
        }
        let Some(prepared) = self.s.prepared.get_mut(&id) else { return Ok(()) };
        for (at, value) in params.iter().enumerate() {
            let number = matches!(value, Value::Int(_) | Value::UInt(_) | Value::Double(_));
            let text = matches!(value, Value::Str(_));
            if direct.get(at) == Some(&true) && (number || text) {
                let before = prepared.first_types.entry(at).or_insert(number);
                if *before != number {
                    return Err(unsupported("a parameter of another kind than before on MySQL").into());
                }
            }
        }
        Ok(())
    }

    /// COM_STMT_FETCH.
    pub(crate) fn com_fetch(&mut self, body: &[u8]) -> Made<()> {
        use crate::wire::status;
        self.s.own_conditions = 0;
        let (id, count) = (u32_at(body, 0), u32_at(body, 4) as usize);
        let place = if self.is_maria() { "mysqld_stmt_fetch" } else { "mysql_stmt_precheck" };
        let Some(prepared) = self.s.prepared.get_mut(&id) else { return Err(self.unknown(&id.to_string(), place)) };
        let Some((columns, rows)) = prepared.cursor.as_mut() else {
            let dot = if self.s.dialect.is_maria() { "" } else { "." };
            return Err(Error::new(1421, "HY000", format!("The statement ({id}) has no open cursor{dot}")).into());
        };
        let all = rows.len();
        for row in rows.drain(..count.min(all)) {
            self.out.push(crate::wire::binary_row(&row, columns));
        }
        let last = count > all;
        if last {
            prepared.cursor = None;
        }
        self.s.tracker.add(crate::tracker::place::RESULT);
        let end = self.end_of_rows(if last { status::LAST_ROW_SENT } else { status::CURSOR_EXISTS });
        self.out.push(end);
        Ok(())
    }

    /// COM_STMT_RESET.
    pub(crate) fn com_reset_statement(&mut self, body: &[u8]) -> Made<()> {
        self.s.own_conditions = 0;
        let id = u32_at(body, 0);
        let place = if self.is_maria() { "mysqld_stmt_reset" } else { "mysql_stmt_precheck" };
        let Some(prepared) = self.s.prepared.get_mut(&id) else { return Err(self.unknown(&id.to_string(), place)) };
        prepared.long_data.clear();
        prepared.bad_long_data = false;
        prepared.cursor = None;
        self.ok(0, 0, "");
        Ok(())
    }

    /// COM_STMT_SEND_LONG_DATA, which has no answer.
    pub(crate) fn com_long_data(&mut self, body: &[u8]) {
        let id = u32_at(body, 0);
        let at = usize::from(body.get(4).copied().unwrap_or(0)) | usize::from(body.get(5).copied().unwrap_or(0)) << 8;
        let Some(prepared) = self.s.prepared.get_mut(&id) else { return };
        if at >= prepared.parsed.params {
            prepared.bad_long_data = true;
            return;
        }
        prepared.long_data.entry(at).or_default().extend_from_slice(body.get(6..).unwrap_or_default());
    }
}

fn kind(value: Option<&Value>) -> u8 {
    match value {
        None => 0,
        Some(Value::Null) => 1,
        Some(Value::Int(_)) => 2,
        Some(Value::UInt(_)) => 3,
        Some(Value::Dec(_)) => 4,
        Some(Value::Double(_)) => 5,
        Some(Value::Str(_)) => 6,
    }
}

pub(crate) fn u32_at(body: &[u8], at: usize) -> u32 {
    let byte = |i: usize| body.get(at + i).copied().unwrap_or(0);
    u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)])
}

/// The parameters of an execution; `None` if the packet is not what it should be.
fn read_params(prepared: &mut Prepared, body: &[u8], count: usize) -> Option<Vec<Value>> {
    if count == 0 {
        return Some(Vec::new());
    }
    let mut p = body.get(9..)?;
    let nulls = p.get(..count.div_ceil(8))?.to_vec();
    p = &p[nulls.len()..];
    let (sent, rest) = p.split_first()?;
    p = rest;
    if *sent == 1 {
        let kinds = p.get(..2 * count)?;
        prepared.types = Some(kinds.chunks(2).map(|c| (c[0], c[1] & 0x80 != 0)).collect());
        p = &p[2 * count..];
    }
    let kinds = prepared.types.clone()?;
    let mut made = Vec::new();
    for (i, (kind, unsigned)) in kinds.iter().enumerate() {
        if let Some(data) = prepared.long_data.get(&i) {
            made.push(Value::Str(data.clone()));
            continue;
        }
        if nulls[i / 8] & (1 << (i % 8)) != 0 || *kind == types::NULL {
            made.push(Value::Null);
            continue;
        }
        let width = match *kind {
            1 => 1,
            2 | 13 => 2,
            types::LONG => 4,
            types::LONGLONG => 8,
            types::DOUBLE => {
                let bytes = p.get(..8)?;
                made.push(Value::Double(f64::from_le_bytes(bytes.try_into().ok()?)));
                p = &p[8..];
                continue;
            }
            0xfd | 0xfe | 0x0f | 0xf6 | 0xfb | 0xfc => {
                let length = crate::wire::take_lenenc(&mut p)? as usize;
                made.push(Value::Str(p.get(..length)?.to_vec()));
                p = &p[length..];
                continue;
            }
            _ => return None,
        };
        let bytes = p.get(..width)?;
        p = &p[width..];
        let raw = bytes.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
        let shift = 64 - 8 * width as u32;
        made.push(if *unsigned { Value::UInt(raw) } else { Value::Int(((raw << shift) as i64) >> shift) });
    }
    Some(made)
}
