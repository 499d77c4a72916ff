"""Where a JSON Schema holds further schemas, as draft 2020-12 and its forerunners have it."""

# Keywords whose schemas judge the same value, and those whose schemas judge parts of it.
SAME_VALUE = ("not", "if", "then", "else", "allOf", "anyOf", "oneOf", "dependentSchemas")
SAME_VALUE_MAPS = frozenset({"dependentSchemas"})
PARTS = (
    "items", "prefixItems", "contains", "additionalProperties", "propertyNames", "unevaluatedItems",
    "unevaluatedProperties", "contentSchema", "properties", "patternProperties", "$defs", "definitions",
)  # fmt: skip
PART_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions"})
