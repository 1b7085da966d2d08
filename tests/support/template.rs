//! `template.yaml`, its intrinsic functions as tagged values.

use std::collections::BTreeMap;

use yaml_serde::{Mapping, Value};

pub fn load() -> Value {
    load_from("template.yaml")
}

pub fn load_from(path: &str) -> Value {
    yaml_serde::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Returns a value as CloudFormation resolves it, if its functions need only the given parameters.
pub fn resolved(template: &Value, value: &Value, given: &[(&str, &str)]) -> String {
    let Value::Tagged(tagged) = value else {
        return yaml_serde::to_string(value).unwrap().trim().to_owned();
    };
    let of = |value: &Value| resolved(template, value, given);
    let parameter = |name: &str| given.iter().find(|(given, _)| *given == name).map(|(_, value)| (*value).to_owned());
    let holds = |value: &Value| of(value) == "true";
    let argument = &tagged.value;
    let tag = tagged.tag.to_string();
    match tag.trim_start_matches('!') {
        "Ref" => parameter(argument.as_str().unwrap()).unwrap_or_else(|| format!("{value:?}")),
        "If" if holds(&template["Conditions"][argument[0].as_str().unwrap()]) => of(&argument[1]),
        "If" => of(&argument[2]),
        "Condition" => of(&template["Conditions"][argument.as_str().unwrap()]),
        "Equals" => (of(&argument[0]) == of(&argument[1])).to_string(),
        "Not" => (!holds(&argument[0])).to_string(),
        "Or" => argument.as_sequence().unwrap().iter().any(holds).to_string(),
        "GetAtt" => argument.as_str().unwrap().to_owned(),
        other => panic!("{other} is not known here"),
    }
}

/// The resource with this logical id.
pub fn resource(id: &str) -> Value {
    let resource = load()["Resources"][id].clone();
    assert!(!resource.is_null(), "no {id} in template.yaml");
    resource
}

/// The properties of every resource of this type, by logical id.
pub fn resources_of(kind: &str) -> BTreeMap<String, Value> {
    let template = load();
    let resources = template["Resources"].as_mapping().unwrap().iter();
    let of_kind = resources.filter(|(_, resource)| resource["Type"].as_str() == Some(kind));
    of_kind.map(|(id, resource)| (id.as_str().unwrap().to_owned(), resource["Properties"].clone())).collect()
}

/// A function's properties, those of `Globals` among them as SAM merges them.
pub fn function(id: &str) -> Value {
    merged(&load()["Globals"]["Function"], &resource(id)["Properties"])
}

fn merged(general: &Value, special: &Value) -> Value {
    let (Some(general), Some(special)) = (general.as_mapping(), special.as_mapping()) else {
        return special.clone();
    };
    let mut both: Mapping = general.clone();
    for (name, value) in special {
        let value = general.get(name).map_or_else(|| value.clone(), |general| merged(general, value));
        both.insert(name.clone(), value);
    }
    both.into()
}
