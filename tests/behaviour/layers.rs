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

/// Source text without comments. Comments may link upwards.
fn code(source: &str) -> String {
    let lines = source.lines().map(|line| line.split("//").next().unwrap());
    lines.collect::<Vec<_>>().join("\n")
}

/// The modules that a module names in its code, by paths from `crate` or `super`. `super` and
/// `self` lead to the parent module and to children.
fn imports(name: &str, code: &str, modules: &BTreeMap<String, String>) -> BTreeSet<String> {
    let parent = name.rsplit_once("::").map_or("", |(parent, _)| parent);
    let mut found = BTreeSet::new();
    for (keyword, base) in [("crate::", ""), ("super::", parent)] {
        for (at, _) in code.match_indices(keyword) {
            for path in paths(&code[at + keyword.len()..]) {
                let full = if base.is_empty() { path } else { format!("{base}::{path}") };
                // The longest part of the path that is a module: the rest is an item in it.
                let parts: Vec<_> = full.split("::").collect();
                let module = (1..=parts.len()).rev().map(|length| parts[..length].join("::"));
                found.extend(module.into_iter().find(|module| modules.contains_key(module)));
            }
        }
    }
    found.remove(name);
    found
}

/// The paths at the start of a text, such as `a::b` of `a::b;`, or `a::b` and `a::c::d` of
/// `a::{b, c::d}`.
fn paths(text: &str) -> Vec<String> {
    let end = text.find(|character: char| !character.is_alphanumeric() && !"_:".contains(character));
    let (head, rest) = text.split_at(end.unwrap_or(text.len()));
    let Some(group) = head.strip_suffix("::").filter(|_| rest.starts_with('{')) else { return vec![head.to_owned()] };
    let items = rest[1..rest.find('}').unwrap()].split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(|item| format!("{group}::{item}")).collect()
}

/// Returns a circle of imports, if there is one.
fn circle(edges: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
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
fn no_circle_of_imports() {
    let modules = modules();
    assert!(modules.len() > 25, "{:?}", modules.keys());
    let edges = modules.iter().map(|(name, code)| (name.clone(), imports(name, code, &modules)));
    let edges: BTreeMap<_, _> = edges.collect();
    assert!(edges["webhook::handler"].contains("delivery::relay"), "{edges:?}");
    assert_eq!(circle(&edges), None);
}

#[test]
fn imports_lead_down_the_table_of_lib_rs() {
    let lib = std::fs::read_to_string("src/lib.rs").unwrap();
    // The first column of each row: one room, or several on the ground floor.
    let rows = lib.lines().filter_map(|line| line.strip_prefix("//! | ")?.split('|').next());
    let rows: Vec<Vec<_>> = rows.map(|cell| cell.split('`').skip(1).step_by(2).collect()).collect();
    let floor = |module: &str| {
        let room = module.split("::").next().unwrap();
        rows.iter().position(|row| row.contains(&room)).unwrap_or_else(|| panic!("lib.rs does not list {room}"))
    };
    let modules = modules();
    for (name, code) in &modules {
        for import in imports(name, code, &modules) {
            let same_room = name.split("::").next() == import.split("::").next();
            assert!(same_room || floor(name) < floor(&import), "{name} imports {import}, which is not below it");
        }
    }
}

#[test]
fn finds_a_circle() {
    let edges = [("a", "b"), ("b", "c"), ("c", "b")];
    let edges = edges.map(|(from, to)| (from.to_owned(), BTreeSet::from([to.to_owned()])));
    assert_eq!(circle(&edges.into()), Some(vec!["b".to_owned(), "c".to_owned()]));
    let paths = paths("message::{key::DeliveryId, Message};");
    assert_eq!(paths, ["message::key::DeliveryId", "message::Message"]);
}
