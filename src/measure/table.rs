//! Tables of rows of one kind, by columns: what every output format is made from.

use serde_json::Value;

/// A kind of row, which has columns.
pub trait Tabled: Sized + 'static {
    /// Name of its SQL table.
    const TABLE: &'static str;
    /// Other names by which queries may ask for that table.
    const VIEWS: &'static [&'static str] = &[];

    /// All its columns, in order.
    fn groups() -> &'static [Group<Self>];
}

/// A column: a field of data formats, a column of Markdown tables, or both.
pub struct Column<R> {
    pub field: Option<Field<R>>,
    pub shown: Option<Shown<R>>,
}

/// What data formats have of it.
pub struct Field<R> {
    pub name: &'static str,
    pub sql: SqlType,
    /// Null where the row has none.
    pub value: fn(&R) -> Value,
}

/// What Markdown has of it.
pub struct Shown<R> {
    pub title: &'static str,
    /// `None` where the row has nothing to show.
    pub cell: fn(&R) -> Option<String>,
    /// Characters that cells take at least, where a table is written before all of its rows are known.
    pub least: usize,
}

/// Type of a column of an SQL table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SqlType {
    Text,
    Integer,
    Real,
    /// 0 or 1 where there is no such type.
    Boolean,
}

/// Columns that are there together.
pub struct Group<R: 'static> {
    /// By which whoever knows that rows will need them can ask for them.
    pub name: &'static str,
    /// Whether a row needs them; `None` where every table has them.
    pub needed: Option<fn(&R) -> bool>,
    pub columns: &'static [Column<R>],
}

/// The groups that a table of `rows` has.
pub fn groups_of<R: Tabled>(rows: &[R]) -> Vec<&'static Group<R>> {
    R::groups().iter().filter(|group| group.needed.is_none_or(|needed| rows.iter().any(needed))).collect()
}

/// The fields of `groups`, in order.
pub fn fields<'a, R: 'static>(groups: impl IntoIterator<Item = &'a Group<R>>) -> Vec<&'a Field<R>> {
    groups.into_iter().flat_map(|group| group.columns).filter_map(|column| column.field.as_ref()).collect()
}

impl<R> Column<R> {
    /// A column of texts, or of lists.
    pub const fn text(name: &'static str, value: fn(&R) -> Value) -> Self {
        Self::data(name, SqlType::Text, value)
    }

    /// A column of whole numbers.
    pub const fn integer(name: &'static str, value: fn(&R) -> Value) -> Self {
        Self::data(name, SqlType::Integer, value)
    }

    /// A column of numbers.
    pub const fn real(name: &'static str, value: fn(&R) -> Value) -> Self {
        Self::data(name, SqlType::Real, value)
    }

    /// A column of truth values.
    pub const fn boolean(name: &'static str, value: fn(&R) -> Value) -> Self {
        Self::data(name, SqlType::Boolean, value)
    }

    const fn data(name: &'static str, sql: SqlType, value: fn(&R) -> Value) -> Self {
        Self { field: Some(Field { name, sql, value }), shown: None }
    }

    /// A column of Markdown that repeats another one's field.
    pub const fn again(title: &'static str, cell: fn(&R) -> Option<String>) -> Self {
        Self::again_wide(title, 0, cell)
    }

    /// A column of Markdown that repeats another one's field, with cells of at least so many characters.
    pub const fn again_wide(title: &'static str, least: usize, cell: fn(&R) -> Option<String>) -> Self {
        Self { field: None, shown: Some(Shown { title, cell, least }) }
    }

    /// The same, with a column of Markdown.
    pub const fn shown(self, title: &'static str, cell: fn(&R) -> Option<String>) -> Self {
        self.shown_wide(title, 0, cell)
    }

    /// The same, with a column of Markdown whose cells have at least so many characters.
    pub const fn shown_wide(self, title: &'static str, least: usize, cell: fn(&R) -> Option<String>) -> Self {
        Self { shown: Some(Shown { title, cell, least }), field: self.field }
    }
}
