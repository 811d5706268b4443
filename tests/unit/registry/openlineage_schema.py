"""What OpenLineage 2-0-2 asks of a run event, as JSON schema, with the facets that we write.

Source: the specification's OpenLineage.json, and the facets DatasetVersionDatasetFacet 1-0-1,
ParentRunFacet 1-2-0 and ErrorMessageRunFacet 1-0-1.
"""

_URI = {"type": "string", "format": "uri", "pattern": r"^[A-Za-z][A-Za-z0-9+.-]*:\S+$"}
_UUID = {"type": "string", "format": "uuid"}
_TEXT = {"type": "string", "minLength": 1}
_BASE = {"_producer": _URI, "_schemaURL": _URI}


def _object(required, properties, *, is_open=True):
    return {
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": is_open,
    }


def _facet(required, properties):
    return _object(["_producer", "_schemaURL", *required], _BASE | properties)


def _facets(**known):
    """Any facet names its producer and its schema; those that we write have more to say."""
    return {"type": "object", "properties": known, "additionalProperties": _facet([], {})}


_JOB = _object(
    ["namespace", "name"], {"namespace": _TEXT, "name": _TEXT, "facets": _facets()}, is_open=False
)
_RUN = _object(
    ["runId"],
    {
        "runId": _UUID,
        "facets": _facets(
            parent=_facet(
                ["run", "job"],
                {
                    "run": _object(["runId"], {"runId": _UUID}),
                    "job": _object(["namespace", "name"], {"namespace": _TEXT, "name": _TEXT}),
                },
            ),
            errorMessage=_facet(
                ["message", "programmingLanguage"],
                {"message": {"type": "string"}, "programmingLanguage": _TEXT},
            ),
        ),
    },
    is_open=False,
)
_DATASETS = {
    "type": "array",
    "items": _object(
        ["namespace", "name"],
        {
            "namespace": _TEXT,
            "name": _TEXT,
            "facets": _facets(version=_facet(["datasetVersion"], {"datasetVersion": _TEXT})),
        },
        is_open=False,
    ),
}
EVENT = _object(
    ["eventTime", "producer", "schemaURL", "run", "job"],
    {
        "eventTime": {"type": "string", "format": "date-time"},
        "producer": _URI,
        "schemaURL": _URI,
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "run": _RUN,
        "job": _JOB,
        "inputs": _DATASETS,
        "outputs": _DATASETS,
    },
    is_open=False,
)
