//! How a configuration is put together: flags over environment over file over defaults.
//!
//! All four speak of the same keys: `http.connections_max` in the file is
//! `COMLOG_HTTP__CONNECTIONS_MAX` in the environment and `--set http.connections_max=...` on the
//! command line. Which keys there are, and what type each has, the defaults say; nothing is
//! written down twice.

use std::fmt::Display;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::units;

/// What environment variables of the server begin with.
const ENV_PREFIX: &str = "COMLOG_";
/// Variables with that prefix that are not keys: the clients', and those that name files and
/// programs for `comlog serve` and its drills.
const ENV_EXEMPT: [&str; 4] = [
    "COMLOG_SERVER",
    "COMLOG_CA_CERT",
    "COMLOG_CONFIG",
    "COMLOG_BIN",
];
const NO_SUCH_KEY: &str = "there is no such key";

/// What is wrong with the configuration, in a sentence that names the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(crate) String);

/// Where values come from, the strongest last; the defaults are `T`'s own.
#[derive(Debug, Default)]
pub(crate) struct Layers<'a> {
    pub(crate) file: Option<&'a Path>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) flags: &'a [(String, String)],
}

impl Layers<'_> {
    /// Puts the layers together; not yet validated. Also gives a sentence for each variable of the
    /// environment that is not known.
    pub(crate) fn load<T>(self) -> Result<(T, Vec<String>), ConfigError>
    where
        T: Default + Serialize + DeserializeOwned,
    {
        let defaults = to_table(&T::default())?;
        let mut table = defaults.clone();
        let mut warnings = Vec::new();
        if let Some(path) = self.file {
            merge_file(&mut table, path)?;
        }
        for (name, text) in self.env {
            let Some(key) = env_key(&name) else { continue };
            if set(&mut table, &key, &text).is_err() {
                warnings.push(format!("environment variable {name} is not known, ignored"));
            }
        }
        for (key, text) in self.flags {
            set(&mut table, key, text).map_err(|error| ConfigError(format!("{key}: {error}")))?;
        }
        normalize(&mut table, &defaults);
        check_each::<T>(&table, &[])?;
        let whole = table.try_into();
        let whole = whole.map_err(|error| ConfigError(error.message().to_owned()))?;
        Ok((whole, warnings))
    }
}

/// A configuration as a table of its keys.
pub(crate) fn to_table<T: Serialize>(config: &T) -> Result<Table, ConfigError> {
    Table::try_from(config).map_err(|error| ConfigError(error.to_string()))
}

/// The key an environment variable stands for, `None` for variables that are none of ours.
fn env_key(name: &str) -> Option<String> {
    let key = name.strip_prefix(ENV_PREFIX)?;
    let ours = !ENV_EXEMPT.contains(&name);
    ours.then(|| key.to_ascii_lowercase().replace("__", "."))
}

fn merge_file(table: &mut Table, path: &Path) -> Result<(), ConfigError> {
    let failed = |error: &dyn Display| ConfigError(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
    let file: Table = text.parse().map_err(|error| failed(&error))?;
    merge(table, file, "").map_err(|key| failed(&format!("unknown key {key}")))
}

/// Lays `over` onto `table`; `Err` names a key that `table` does not have.
fn merge(table: &mut Table, over: Table, prefix: &str) -> Result<(), String> {
    for (key, value) in over {
        let path = format!("{prefix}{key}");
        match (table.get_mut(&key), value) {
            (None, _) => return Err(path),
            (Some(Value::Table(inner)), Value::Table(value)) => {
                merge(inner, value, &format!("{path}."))?;
            }
            (Some(slot), value) => *slot = value,
        }
    }
    Ok(())
}

/// Sets the value of a dotted key from text; what type it should have is looked at later.
fn set(table: &mut Table, key: &str, text: &str) -> Result<(), &'static str> {
    let (name, rest) = key
        .split_once('.')
        .map_or((key, None), |(name, rest)| (name, Some(rest)));
    match (table.get_mut(name), rest) {
        (Some(Value::Table(inner)), Some(rest)) => set(inner, rest, text),
        (None | Some(Value::Table(_)), _) | (Some(_), Some(_)) => Err(NO_SUCH_KEY),
        (Some(slot), None) => {
            *slot = Value::String(text.to_owned());
            Ok(())
        }
    }
}

/// Turns text into what the default of its key is: numbers from `"64MiB"`, `"5s"` and
/// `"unlimited"`, lists from commas. What does not parse stays, and is refused by name later.
fn normalize(table: &mut Table, defaults: &Table) {
    for (key, value) in table.iter_mut() {
        let text = match (&mut *value, defaults.get(key)) {
            (Value::Table(inner), Some(Value::Table(defaults))) => {
                normalize(inner, defaults);
                continue;
            }
            (Value::String(text), _) => text.as_str(),
            _ => continue,
        };
        let converted = match defaults.get(key) {
            Some(Value::Integer(_)) if key.ends_with("_ms") || key.ends_with("_ms_max") => {
                units::parse_milliseconds(text).map(Value::Integer)
            }
            Some(Value::Integer(_)) => units::parse_bytes(text).map(Value::Integer),
            Some(Value::Boolean(_)) => parse_bool(text).map(Value::Boolean),
            Some(Value::Array(_)) => Some(parse_list(text)),
            _ => None,
        };
        if let Some(converted) = converted {
            *value = converted;
        }
    }
}

fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn parse_list(text: &str) -> Value {
    let items = text.split(',').map(str::trim);
    let items = items.filter(|item| !item.is_empty());
    Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
}

/// Reads each value alone over the defaults, so that the error can name its key.
fn check_each<T: DeserializeOwned>(table: &Table, path: &[&str]) -> Result<(), ConfigError> {
    for (key, value) in table {
        let path = [path, &[key]].concat();
        if let Value::Table(inner) = value {
            check_each::<T>(inner, &path)?;
            continue;
        }
        let mut alone = value.clone();
        for name in path.iter().rev() {
            alone = Value::Table(Table::from_iter([((*name).to_owned(), alone)]));
        }
        if let Err(error) = alone.try_into::<T>() {
            let (key, message) = (path.join("."), error.message());
            return Err(ConfigError(format!("{key}: {message}")));
        }
    }
    Ok(())
}
