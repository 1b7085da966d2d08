//! `template.yaml`, its intrinsic functions as tagged values.

use yaml_serde::Value;

pub fn load() -> Value {
    yaml_serde::from_str(&std::fs::read_to_string("template.yaml").unwrap()).unwrap()
}

/// The one resource of this type.
pub fn resource(kind: &str) -> Value {
    let template = load();
    let resources = template["Resources"].as_mapping().unwrap();
    let mut found = resources.values().filter(|resource| resource["Type"].as_str() == Some(kind));
    let resource = found.next().unwrap_or_else(|| panic!("no {kind} in template.yaml"));
    assert!(found.next().is_none(), "more than one {kind} in template.yaml");
    resource.clone()
}
