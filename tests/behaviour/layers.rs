//! The modules of `src` import downwards only, in the order of the table in `lib.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Every source file of the library by its module's path, such as `delivery::ledger::dynamodb`.
fn modules() -> BTreeMap<String, String> {
    let mut modules = BTreeMap::new();
    let mut folders = vec![PathBuf::from("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("bin") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = name_of(&path);
                modules.insert(name, code(&std::fs::read_to_string(path).unwrap()));
            }
        }
    }
    modules.remove("lib");
    modules
}

fn name_of(path: &Path) -> String {
    let path = path.strip_prefix("src").unwrap().with_extension("");
    let parts: Vec<_> = path.iter().map(|part| part.to_str().unwrap()).filter(|part| *part != "mod").collect();
    parts.join("::")
}

/// Returns source text without comments, because comments may link upwards.
fn code(source: &str) -> String {
    let before_comment = |line: &str| {
        let starts = line.match_indices("//").map(|(at, _)| at);
        // A `//` inside a URL follows a colon.
        let at = starts.into_iter().find(|at| !line[..*at].ends_with(':')).unwrap_or(line.len());
        line[..at].to_owned()
    };
    source.lines().map(before_comment).collect::<Vec<_>>().join("\n")
}

/// Returns the modules that a module names in its code: by paths from `crate`, `super`, `self`, or
/// by a child in a `use`. A parent may import its child.
fn imports(name: &str, code: &str, modules: &BTreeMap<String, String>) -> BTreeSet<String> {
    let parent = |module: &str| module.rsplit_once("::").map_or(String::new(), |(parent, _)| parent.to_owned());
    let mut found = BTreeSet::new();
    let mut add = |base: &str, text: &str| {
        for path in paths(text) {
            let full = format!("{base}::{path}");
            let parts: Vec<_> = full.split("::").filter(|part| !part.is_empty()).collect();
            // The longest prefix of the path that is a module. The rest is an item in the module.
            let parents = (1..=parts.len()).rev().map(|length| parts[..length].join("::"));
            found.extend(parents.into_iter().find(|module| modules.contains_key(module)));
        }
    };
    for (keyword, first) in [("crate::", String::new()), ("self::", name.to_owned()), ("super::", parent(name))] {
        for (at, _) in code.match_indices(keyword).filter(|(at, _)| is_start(&code[..*at])) {
            let (mut base, mut rest) = (first.clone(), &code[at + keyword.len()..]);
            while let Some(further) = rest.strip_prefix("super::") {
                (base, rest) = (parent(&base), further);
            }
            add(&base, rest);
        }
    }
    for (at, _) in code.match_indices("use ").filter(|(at, _)| is_start(&code[..*at])) {
        let rest = &code[at + "use ".len()..];
        let child = format!("{name}::{}", rest.split("::").next().unwrap());
        if modules.contains_key(&child) {
            add(name, rest);
        }
    }
    found.remove(name);
    found
}

/// Returns whether a path or a keyword can start after this text.
fn is_start(before: &str) -> bool {
    !before.ends_with(|character: char| character.is_alphanumeric() || "_:".contains(character))
}

/// Returns the paths of the import tree at the start of a text. For example, `a::{b, c::{d}}` gives
/// `a::b` and `a::c::d`.
fn paths(text: &str) -> Vec<String> {
    let end = text.find(|character: char| !character.is_alphanumeric() && !"_:".contains(character));
    let (head, rest) = text.split_at(end.unwrap_or(text.len()));
    let Some(group) = rest.strip_prefix('{').filter(|_| head.is_empty() || head.ends_with("::")) else {
        return vec![head.trim_end_matches("::self").to_owned()];
    };
    let (mut items, mut item, mut depth) = (Vec::new(), String::new(), 0);
    for character in group.chars() {
        match character {
            '}' if depth == 0 => break,
            ',' if depth == 0 => items.push(std::mem::take(&mut item)),
            _ => item.push(character),
        }
        depth += i32::from(character == '{') - i32::from(character == '}');
    }
    items.push(item);
    let items = items.iter().map(|item| item.trim()).filter(|item| !item.is_empty());
    items.flat_map(paths).map(|path| format!("{head}{path}").trim_end_matches("::self").to_owned()).collect()
}

/// Returns a cycle of imports, if there is one.
fn cycle(edges: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn walk(
        at: &str,
        edges: &BTreeMap<String, BTreeSet<String>>,
        path: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|module| module == at) {
            return Some(path[start..].to_vec());
        }
        path.push(at.to_owned());
        let next = edges.get(at).into_iter().flatten().filter(|next| !done.contains(*next));
        let found = next.cloned().collect::<Vec<_>>().iter().find_map(|next| walk(next, edges, path, done));
        path.pop();
        done.insert(at.to_owned());
        found
    }
    let mut done = BTreeSet::new();
    edges.keys().find_map(|module| walk(module, edges, &mut Vec::new(), &mut done))
}

#[test]
fn imports_have_no_cycle() {
    let modules = modules();
    assert!(modules.len() > 25, "{:?}", modules.keys());
    let edges = modules.iter().map(|(name, code)| (name.clone(), imports(name, code, &modules)));
    let edges: BTreeMap<_, _> = edges.collect();
    assert!(edges["webhook::handler"].contains("delivery::relay"), "{edges:?}");
    assert_eq!(cycle(&edges), None);
}

#[test]
fn imports_lead_down_the_table_of_lib_rs() {
    let lib = std::fs::read_to_string("src/lib.rs").unwrap();
    // The first column of each row lists one module, or several in the last row.
    let rows = lib.lines().filter_map(|line| line.strip_prefix("//! | ")?.split('|').next());
    let rows: Vec<Vec<_>> = rows.map(|cell| cell.split('`').skip(1).step_by(2).collect()).collect();
    let layer = |module: &str| {
        let top = module.split("::").next().unwrap();
        rows.iter().position(|row| row.contains(&top)).unwrap_or_else(|| panic!("lib.rs does not list {top}"))
    };
    let modules = modules();
    for (name, code) in &modules {
        for import in imports(name, code, &modules) {
            let same_top = name.split("::").next() == import.split("::").next();
            assert!(same_top || layer(name) < layer(&import), "{name} imports {import}, which is not below it");
        }
    }
}

#[test]
fn finds_a_cycle() {
    let edges = [("a", "b"), ("b", "c"), ("c", "b")];
    let edges = edges.map(|(from, to)| (from.to_owned(), BTreeSet::from([to.to_owned()])));
    assert_eq!(cycle(&edges.into()), Some(vec!["b".to_owned(), "c".to_owned()]));
}

#[test]
fn finds_every_form_of_import() {
    let names = ["config", "room", "room::a", "room::a::deep", "room::b", "room::b::c", "room::d"];
    let modules: BTreeMap<_, _> = names.map(|name| (name.to_owned(), String::new())).into();
    for (name, code, expected) in [
        ("room::a", "use crate::config::Config;", vec!["config"]),
        ("room::a", "use crate::{config::{self, Config}, room::b};", vec!["config", "room::b"]),
        ("room::a", "use crate::room::{b::{c::{X, Y}, Z}, d};", vec!["room::b", "room::b::c", "room::d"]),
        ("room::a", "fn f() -> crate::room::d::D {}", vec!["room::d"]),
        ("room::a", "use super::{b::Slot, Item};", vec!["room", "room::b"]),
        ("room::a::deep", "use super::super::super::config::Config;", vec!["config"]),
        ("room::a::deep", "let x = super::super::d::f();", vec!["room::d"]),
        ("room", "mod a;\npub use a::{Item, deep::X};", vec!["room::a", "room::a::deep"]),
        ("room", "use self::b::c::X;", vec!["room::b::c"]),
        ("room::a", "let url = \"https://example.com\"; crate::config::f(); // crate::room::d", vec!["config"]),
        ("room::a", "use std::fmt; reuse crate_config::X;", vec![]),
    ] {
        let found: Vec<_> = imports(name, &self::code(code), &modules).into_iter().collect();
        assert_eq!(found, expected, "{name}: {code}");
    }
}
