//! Statements.

use std::sync::Arc;

use super::{Made, Parser, Stop};
use crate::ast::*;
use crate::lexer::Kind;
use crate::value::Value;

impl Parser<'_> {
    pub(crate) fn statement(&mut self) -> Made<Stmt> {
        let Some(token) = self.next() else { return Err(Stop::Syntax) };
        match self.of(token).to_ascii_lowercase().as_str() {
            "select" => Ok(Stmt::Select(Box::new(self.select()?))),
            "do" => Ok(Stmt::Do(self.list(Self::expr)?)),
            "insert" => self.insert(false),
            "replace" => self.insert(true),
            "update" => self.update(),
            "delete" => {
                self.need_word("from")?;
                Ok(Stmt::Delete { table: self.table()?, filter: self.filter()? })
            }
            "set" => self.set(),
            "begin" if self.body == 0 => {
                self.word("work");
                Ok(Stmt::Begin { read_only: None, snapshot: false })
            }
            "start" => self.start(),
            "commit" => {
                let (chain, release) = self.completion()?;
                Ok(Stmt::Commit { chain, release })
            }
            "rollback" => self.rollback(),
            "savepoint" => Ok(Stmt::Savepoint(self.name()?)),
            "release" => {
                self.need_word("savepoint")?;
                Ok(Stmt::ReleaseSavepoint(self.name()?))
            }
            "create" => self.create(),
            "drop" => self.drop(),
            "call" => {
                self.runs_code = true;
                let name = self.table()?;
                let args = if self.sign("(") { self.arguments()? } else { Vec::new() };
                Ok(Stmt::Call(name, args))
            }
            "signal" => {
                self.need_word("sqlstate")?;
                let state = self.string()?;
                let message = if self.words(&["set", "message_text"]) {
                    self.need("=")?;
                    Some(self.string()?)
                } else {
                    None
                };
                Ok(Stmt::Signal(state, message))
            }
            "return" if self.body > 0 => Ok(Stmt::Return(self.expr()?)),
            "prepare" => {
                let name = self.name()?;
                self.need_word("from")?;
                self.runs_code = true;
                Ok(Stmt::Prepare(name, self.text_source()?))
            }
            "execute" => self.execute(),
            "deallocate" => {
                self.need_word("prepare")?;
                Ok(Stmt::Deallocate(self.name()?))
            }
            "use" => Ok(Stmt::Use(self.name()?)),
            "show" => self.show(),
            "kill" => {
                let query = self.word("query");
                if !query {
                    self.word("connection");
                }
                Ok(Stmt::Kill { query, id: self.expr()? })
            }
            "lock" => self.lock(),
            "unlock" => {
                if !self.word("tables") {
                    self.need_word("table")?;
                }
                Ok(Stmt::UnlockTables)
            }
            _ => {
                self.back();
                Err(self.stop())
            }
        }
    }

    /// The text of PREPARE: MySQL takes a string or a user variable only.
    fn text_source(&mut self) -> Made<Expr> {
        let simple = self.peek().is_some_and(|t| matches!(t.kind, Kind::Str(_) | Kind::UserVar(_)));
        if self.maria || simple { self.expr() } else { Err(Stop::Syntax) }
    }

    fn execute(&mut self) -> Made<Stmt> {
        self.runs_code = true;
        let immediate = self.is_word(0, "immediate") && self.peek_at(1).is_some();
        if immediate {
            if !self.maria {
                return Err(Stop::Syntax);
            }
            self.next();
            let text = self.expr()?;
            let using = if self.word("using") { self.list(Self::expr)? } else { Vec::new() };
            return Ok(Stmt::ExecuteImmediate(text, using));
        }
        let name = self.name()?;
        let using = if self.word("using") { self.list(Self::expr)? } else { Vec::new() };
        Ok(Stmt::Execute(name, using))
    }

    pub(crate) fn select(&mut self) -> Made<Select> {
        let calc_found_rows = self.word("sql_calc_found_rows");
        if self.is_word(0, "distinct") || self.is_word(0, "all") {
            return Err(self.stop());
        }
        let items = self.list(Self::item)?;
        let mut made = Select {
            calc_found_rows,
            items,
            from: None,
            filter: None,
            order: None,
            limit: None,
            for_update: false,
            into: Vec::new(),
            into_last: false,
        };
        self.into(&mut made)?;
        if self.word("from") {
            if !self.word("dual") {
                made.from = Some(self.table()?);
            }
            made.filter = self.filter()?;
            if self.words(&["order", "by"]) {
                let by = self.name()?;
                let descending = self.word("desc");
                if !descending {
                    self.word("asc");
                }
                made.order = Some((by, descending));
            }
        }
        if self.word("limit") {
            made.limit = Some(self.expr()?);
        }
        let early = !made.into.is_empty();
        self.into(&mut made)?;
        made.for_update = self.words(&["for", "update"]);
        self.into(&mut made)?;
        made.into_last = !early && !made.into.is_empty();
        Ok(made)
    }

    fn into(&mut self, made: &mut Select) -> Made<()> {
        if !self.word("into") {
            return Ok(());
        }
        made.into = self.list(|p| match p.next().map(|t| &t.kind) {
            Some(Kind::UserVar(name)) => Ok(super::expr::lower(name)),
            _ => {
                p.back();
                Err(p.stop())
            }
        })?;
        Ok(())
    }

    fn item(&mut self) -> Made<Item> {
        if self.sign("*") {
            return Ok(Item::Star);
        }
        let start = self.peek().map_or(0, |t| t.start);
        let string = match self.peek().map(|t| &t.kind) {
            Some(Kind::Str(text)) => Some(text.clone()),
            Some(Kind::Quoted(name)) => Some(name.clone()),
            _ => None,
        };
        let first = self.peek().map_or(0, |t| t.end);
        let expr = self.expr()?;
        let mut name: Arc<str> = match string {
            // A string alone is named by its content.
            Some(text) if self.end() == first => text.as_str().into(),
            _ => self.text[start..self.end()].into(),
        };
        if let Expr::Name(_, column) = &expr {
            name = column.clone();
        }
        if self.word("as") {
            name = self.name_or_string()?;
        }
        Ok(Item::Expr { expr, name })
    }

    fn filter(&mut self) -> Made<Option<Expr>> {
        if self.word("where") { self.expr().map(Some) } else { Ok(None) }
    }

    fn insert(&mut self, replace: bool) -> Made<Stmt> {
        let ignore = !replace && self.word("ignore");
        self.word("into");
        let table = self.table()?;
        let mut columns = None;
        if self.sign("(") {
            if self.sign(")") {
                columns = Some(Vec::new());
            } else {
                columns = Some(self.list(Self::name)?);
                self.need(")")?;
            }
        }
        if !self.word("values") {
            self.need_word("value")?;
        }
        let rows = self.list(|p| {
            p.need("(")?;
            if p.sign(")") {
                return Ok(Vec::new());
            }
            let row = p.list(|p| if p.word("default") { Ok(None) } else { p.expr().map(Some) })?;
            p.need(")")?;
            Ok(row)
        })?;
        let mut on_duplicate = Vec::new();
        if !replace && self.words(&["on", "duplicate", "key", "update"]) {
            on_duplicate = self.list(Self::assignment)?;
        }
        let mut returning = Vec::new();
        if self.word("returning") {
            if !self.maria {
                return Err(Stop::Syntax);
            }
            returning = self.list(Self::item)?;
        }
        Ok(Stmt::Insert(Box::new(Insert { replace, ignore, table, columns, rows, on_duplicate, returning })))
    }

    fn assignment(&mut self) -> Made<(Arc<str>, Expr)> {
        let name = self.name()?;
        self.need("=")?;
        Ok((name, self.expr()?))
    }

    fn update(&mut self) -> Made<Stmt> {
        let table = self.table()?;
        self.need_word("set")?;
        let set = self.list(Self::assignment)?;
        Ok(Stmt::Update { table, set, filter: self.filter()? })
    }

    fn start(&mut self) -> Made<Stmt> {
        self.need_word("transaction")?;
        let (mut read_only, mut snapshot) = (None, false);
        if self.is_word(0, "read") || self.is_word(0, "with") {
            self.list(|p| {
                if p.words(&["with", "consistent", "snapshot"]) {
                    snapshot = true;
                } else if p.words(&["read", "only"]) {
                    read_only = Some(true);
                } else if p.words(&["read", "write"]) {
                    read_only = Some(false);
                } else {
                    return Err(p.stop());
                }
                Ok(())
            })?;
        }
        Ok(Stmt::Begin { read_only, snapshot })
    }

    fn completion(&mut self) -> Made<(Option<bool>, Option<bool>)> {
        self.word("work");
        let (mut chain, mut release) = (None, None);
        if self.word("and") {
            chain = Some(!self.word("no"));
            self.need_word("chain")?;
        }
        if self.is_word(0, "no") || self.is_word(0, "release") {
            release = Some(!self.word("no"));
            self.need_word("release")?;
        }
        Ok((chain, release))
    }

    fn rollback(&mut self) -> Made<Stmt> {
        if self.word("to") {
            self.word("savepoint");
            return Ok(Stmt::RollbackTo(self.name()?));
        }
        let (chain, release) = self.completion()?;
        Ok(Stmt::Rollback { chain, release })
    }

    fn drop(&mut self) -> Made<Stmt> {
        if self.word("prepare") {
            return Ok(Stmt::Deallocate(self.name()?));
        }
        let temporary = self.word("temporary");
        for what in ["PROCEDURE", "FUNCTION", "TRIGGER", "VIEW"] {
            if self.word(what) {
                let if_exists = self.words(&["if", "exists"]);
                return Ok(Stmt::DropRoutine { what, if_exists, name: self.table()? });
            }
        }
        self.need_word("table")?;
        let if_exists = self.words(&["if", "exists"]);
        Ok(Stmt::DropTable { temporary, if_exists, tables: self.list(Self::table)? })
    }

    fn show(&mut self) -> Made<Stmt> {
        if self.word("count") {
            self.need("(")?;
            self.need("*")?;
            self.need(")")?;
            let errors = self.word("errors");
            if !errors {
                self.need_word("warnings")?;
            }
            return Ok(Stmt::ShowDiagnostics { errors, count: true });
        }
        for (word, errors) in [("warnings", false), ("errors", true)] {
            if self.word(word) {
                return Ok(Stmt::ShowDiagnostics { errors, count: false });
            }
        }
        let scope = self.scope_word().unwrap_or(Scope::Bare);
        self.need_word("variables")?;
        let like = if self.word("like") { Some(self.string()?) } else { None };
        Ok(Stmt::ShowVariables { scope, like })
    }

    fn lock(&mut self) -> Made<Stmt> {
        if !self.word("tables") {
            self.need_word("table")?;
        }
        let tables = self.list(|p| {
            let table = p.table()?;
            let write = p.word("write");
            if !write {
                p.need_word("read")?;
            }
            Ok((table, write))
        })?;
        Ok(Stmt::LockTables(tables))
    }

    fn create(&mut self) -> Made<Stmt> {
        let temporary = self.word("temporary");
        if self.word("table") {
            let if_not_exists = self.words(&["if", "not", "exists"]);
            let table = self.table()?;
            self.need("(")?;
            let mut columns = self.list(Self::column_definition)?;
            self.need(")")?;
            for column in &mut columns {
                column.not_null |= column.primary;
            }
            return Ok(Stmt::CreateTable { temporary, if_not_exists, table, columns });
        }
        if temporary {
            return Err(self.stop());
        }
        self.create_routine()
    }

    fn create_routine(&mut self) -> Made<Stmt> {
        let routine = |name, routine| Ok(Stmt::CreateRoutine { name, routine: Arc::new(routine) });
        if self.word("view") {
            let name = self.table()?;
            self.need_word("as")?;
            self.need_word("select")?;
            return routine(name, Routine::View(self.select()?));
        }
        let params = self.params;
        let runs_code = self.runs_code;
        let made = if self.word("procedure") {
            let name = self.table()?;
            let params = self.routine_params()?;
            let body = self.body()?;
            routine(name, Routine::Procedure { params, body })
        } else if self.word("function") {
            let name = self.table()?;
            let params = self.routine_params()?;
            self.need_word("returns")?;
            let returns = self.column_type()?;
            while self.word("deterministic") || self.words(&["modifies", "sql", "data"]) || self.words(&["no", "sql"]) {
            }
            let body = self.body()?;
            routine(name, Routine::Function { params, returns, body })
        } else {
            self.need_word("trigger")?;
            let name = self.table()?;
            let before = self.word("before");
            if !before {
                self.need_word("after")?;
            }
            let when = match (before, self.word("insert"), self.word("update"), self.word("delete")) {
                (true, true, ..) => When::BeforeInsert,
                (false, true, ..) => When::AfterInsert,
                (true, _, true, _) => When::BeforeUpdate,
                (false, _, true, _) => When::AfterUpdate,
                (true, _, _, true) => When::BeforeDelete,
                (false, _, _, true) => When::AfterDelete,
                _ => return Err(self.stop()),
            };
            self.need_word("on")?;
            let table = self.table()?;
            if !self.words(&["for", "each", "row"]) {
                return Err(self.stop());
            }
            let body = self.body()?;
            routine(name, Routine::Trigger { when, table, body })
        };
        (self.params, self.runs_code) = (params, runs_code);
        made
    }

    fn routine_params(&mut self) -> Made<Vec<(Arc<str>, ColumnType)>> {
        self.need("(")?;
        if self.sign(")") {
            return Ok(Vec::new());
        }
        let params = self.list(|p| {
            p.word("in");
            Ok((p.name()?, p.column_type()?))
        })?;
        self.need(")")?;
        Ok(params)
    }

    /// One statement, or BEGIN … END.
    fn body(&mut self) -> Made<Vec<Stmt>> {
        self.body += 1;
        let mut made = Vec::new();
        if self.word("begin") {
            while !self.word("end") {
                made.push(self.statement()?);
                self.need(";")?;
            }
        } else {
            made.push(self.statement()?);
        }
        self.body -= 1;
        Ok(made)
    }

    fn column_type(&mut self) -> Made<ColumnType> {
        let size = |p: &mut Self| -> Made<Vec<u32>> {
            if !p.sign("(") {
                return Ok(Vec::new());
            }
            let sizes = p.list(|p| {
                let token = p.next().ok_or(Stop::Syntax)?;
                p.of(token).parse().map_err(|_| Stop::Syntax)
            })?;
            p.need(")")?;
            Ok(sizes)
        };
        if self.word("int") || self.word("integer") {
            return Ok(ColumnType::Int { unsigned: self.word("unsigned") });
        }
        if self.word("bigint") {
            return Ok(ColumnType::BigInt { unsigned: self.word("unsigned") });
        }
        if self.word("double") {
            return Ok(ColumnType::Double);
        }
        if self.word("decimal") {
            let sizes = size(self)?;
            let get = |i: usize, or: u32| sizes.get(i).copied().unwrap_or(or) as u8;
            return Ok(ColumnType::Decimal(get(0, 10), get(1, 0)));
        }
        self.need_word("varchar")?;
        Ok(ColumnType::Varchar(size(self)?.first().copied().ok_or(Stop::Syntax)?))
    }

    fn column_definition(&mut self) -> Made<Column> {
        let name = self.name()?;
        let ty = self.column_type()?;
        let mut column = Column { name, ty, not_null: false, primary: false, auto_increment: false, default: None };
        loop {
            if self.words(&["not", "null"]) {
                column.not_null = true;
            } else if self.words(&["primary", "key"]) {
                column.primary = true;
            } else if self.word("auto_increment") {
                column.auto_increment = true;
            } else if self.word("default") {
                column.default = match self.expr()? {
                    Expr::Lit(value) => Some(value).filter(|v| *v != Value::Null),
                    _ => return Err(Stop::Unsupported("DEFAULT of an expression".into())),
                };
            } else {
                return Ok(column);
            }
        }
    }
}
