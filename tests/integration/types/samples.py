"""
Types of columns with sample values.

Every type that PostgreSQL accepts for a primary key, and every field class of Django that Django accepts
for one, has a line here (``test_samples.py`` compares with the server's catalog).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg
from django.contrib.postgres import fields as postgres
from django.db import NotSupportedError, models

if TYPE_CHECKING:
    from collections.abc import Callable

    AnyField = models.Field[Any, Any]
    BigInteger = models.BigIntegerField[Any, Any]
else:
    # Subscripts are of the stubs alone.
    AnyField, BigInteger = models.Field, models.BigIntegerField


class Prefixed(BigInteger):
    """In the database 5, in Python ``ord_5``: what packages of public ids do."""

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return None if value is None else f"ord_{value}"

    def to_python(self, value: Any) -> Any:
        if value is None or str(value).startswith("ord_"):
            return value
        return f"ord_{int(value)}"

    def get_prep_value(self, value: Any) -> Any:
        return None if value is None else int(str(value).removeprefix("ord_"))

    validators: Any = ()


class Raw(AnyField):
    """A column whose type Django does not know; its values are what psycopg makes of them."""

    def __init__(self, column: str = "text", **options: Any) -> None:
        self.column_type = column
        super().__init__(**options)

    def db_type(self, connection: Any) -> str:
        return self.column_type

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        return value

    def deconstruct(self) -> Any:
        name, path, args, options = super().deconstruct()
        return name, path, args, {**options, "column": self.column_type}


@dataclass(frozen=True)
class Sample:
    """
    A type.

    Attributes:
        name: Names its table and its test.
        column: The column's type as SQL.
        field: Makes the field; it takes the options of a field.
        values: At least two distinct values as SQL, of which the first two are never equal.
        setup: SQL that makes the type, run once and only where it succeeds.
        since: The first major version of PostgreSQL that has it.
    """

    name: str
    column: str
    field: Callable[..., AnyField]
    values: tuple[str, ...]
    setup: str = ""
    since: int = 14


def _char(**options: Any) -> AnyField:
    return models.CharField(max_length=40, **options)


def _text(**options: Any) -> AnyField:
    return models.TextField(**options)


def _decimal(**options: Any) -> AnyField:
    return models.DecimalField(max_digits=60, decimal_places=2, **options)


def _ints(**options: Any) -> AnyField:
    return postgres.ArrayField(models.IntegerField(), **options)


def _raw(column: str) -> Callable[..., AnyField]:
    return lambda **options: Raw(column, **options)


#: Field classes of Django, each on the column that Django gives it.
DJANGO: Final = (
    Sample("auto", "integer", models.AutoField, ("1", "2147483647")),
    Sample("bigauto", "bigint", models.BigAutoField, ("7", "9223372036854775807")),
    Sample("smallauto", "smallint", models.SmallAutoField, ("7", "-32768")),
    Sample("integer", "integer", models.IntegerField, ("0", "-2147483648")),
    Sample("bigint", "bigint", models.BigIntegerField, ("0", "-9223372036854775808")),
    Sample("smallint", "smallint", models.SmallIntegerField, ("0", "-1")),
    Sample("posint", "integer", models.PositiveIntegerField, ("0", "3")),
    Sample("posbig", "bigint", models.PositiveBigIntegerField, ("0", "3")),
    Sample("possmall", "smallint", models.PositiveSmallIntegerField, ("0", "3")),
    Sample(
        "decimal", "numeric(60,2)", _decimal, ("1.50", "99999999999999999999999999999999999.99")
    ),
    Sample(
        "float",
        "double precision",
        models.FloatField,
        ("0.1::float8 + 0.2::float8", "1e308", "'NaN'", "'Infinity'", "'-0'"),
    ),
    Sample(
        "char", "varchar(40)", _char, ("'x'", "E'a\"b\\\\c\\n\\u20ac{,}%s'", "''", "'null'", "' 1'")
    ),
    Sample("text", "text", _text, ("'x'", "E'\\U0001F600\\x01'")),
    Sample("slug", "varchar(50)", models.SlugField, ("'a-b'", "'c_d'")),
    Sample("email", "varchar(254)", models.EmailField, ("'a@example.org'", "'b@example.org'")),
    Sample("url", "varchar(200)", models.URLField, ("'http://example.org/?a=%25'", "'x:'")),
    Sample("file", "varchar(100)", models.FileField, ("'a/b.txt'", "'c'")),
    Sample("filepath", "varchar(100)", models.FilePathField, ("'/a'", "'/b c'")),
    Sample("boolean", "boolean", models.BooleanField, ("true", "false")),
    Sample("date", "date", models.DateField, ("'2024-02-03'", "'0001-01-01'")),
    Sample(
        "datetime",
        "timestamptz",
        models.DateTimeField,
        ("'2024-02-03 10:00:00.123456+05:30'", "'2024-10-27 01:30+00'"),
    ),
    Sample("time", "time", models.TimeField, ("'01:02:03.5'", "'23:59:59.999999'")),
    Sample(
        "duration",
        "interval",
        models.DurationField,
        ("'-1 day -02:03:04'", "'367 days 00:00:01.5'"),
    ),
    Sample(
        "uuid",
        "uuid",
        models.UUIDField,
        ("'7a0f7a32-61d7-4a43-9a51-5fd0a7c0c001'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"),
    ),
    Sample(
        "ip", "inet", models.GenericIPAddressField, ("'10.0.0.1'", "'2001:db8::1'", "'10.0.0.0/8'")
    ),
    Sample("binary", "bytea", models.BinaryField, ("'\\x0001ff'::bytea", "'\\x616263'::bytea")),
    Sample("json", "jsonb", models.JSONField, ("'{\"a\": [1, null]}'", "'\"x\"'", "'3'")),
    Sample("array", "integer[]", _ints, ("'{1,2}'", "'{}'", "'{{1},{2}}'")),
    Sample("intrange", "int4range", postgres.IntegerRangeField, ("'[1,5)'", "'empty'", "'[7,)'")),
    Sample("bigrange", "int8range", postgres.BigIntegerRangeField, ("'[1,5)'", "'(,5)'")),
    Sample("decrange", "numrange", postgres.DecimalRangeField, ("'[1.50,2)'", "'(0,1]'")),
    Sample(
        "daterange",
        "daterange",
        postgres.DateRangeField,
        ("'[2024-01-01,2024-02-03)'", "'[2025-01-01,)'"),
    ),
    Sample(
        "tstzrange",
        "tstzrange",
        postgres.DateTimeRangeField,
        ("'[2024-02-03 10:00+02,2024-02-04 10:00+02)'", "'(,2025-01-01 00:00+00]'"),
    ),
    Sample(
        "hstore",
        "hstore",
        postgres.HStoreField,
        ("'a=>1, \"b c\"=>NULL'", "''"),
        "CREATE EXTENSION hstore",
    ),
)

#: Columns whose type is not the field's: what people write, migrate to, or have from ``inspectdb``.
UNLIKE: Final = (
    Sample("prefixed", "bigint", Prefixed, ("5", "6")),
    Sample("widened", "bigint", models.IntegerField, ("3000000000", "1")),
    Sample("whole", "numeric", models.BigIntegerField, ("123456789012345678901234567890", "1")),
    Sample(
        "uuid_char",
        "uuid",
        _char,
        ("'7a0f7a32-61d7-4a43-9a51-5fd0a7c0c001'", "'7a0f7a32-61d7-4a43-9a51-5fd0a7c0c002'"),
    ),
    Sample(
        "enum_char",
        "sample_stage",
        _char,
        ("'new'", "'it''s \"done\"'"),
        "CREATE TYPE sample_stage AS ENUM ('new', 'it''s \"done\"')",
    ),
    Sample("padded_char", "char(10)", _char, ("'ab'", "'c d'")),
    Sample("citext", "citext", _text, ("'Ab'", "'cD'"), "CREATE EXTENSION citext"),
    Sample(
        "nocase",
        "text COLLATE sample_nocase",
        _text,
        ("'Ab'", "'cD'"),
        "CREATE COLLATION sample_nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
    ),
    Sample(
        "domain",
        "sample_code",
        _char,
        ("'A-1'", "'B-2'"),
        "CREATE DOMAIN sample_code AS text CHECK (VALUE ~ '-')",
    ),
    Sample(
        "moment_domain",
        "sample_moment",
        models.DateTimeField,
        ("'2024-02-03 10:00+05'", "'2025-02-03 10:00+05'"),
        "CREATE DOMAIN sample_moment AS timestamptz",
    ),
    Sample(
        "date_text",
        "date",
        _text,
        ("'2024-02-03'", "'0001-01-01'", "'infinity'", "'0044-03-15 BC'"),
    ),
    Sample(
        "infinite",
        "timestamptz",
        _raw("timestamptz"),
        (
            "'2024-02-03 10:00+05:30'",
            "'0001-01-01 00:00+00'",
            "'infinity'",
            "'0044-03-15 00:00+00 BC'",
        ),
    ),
    Sample(
        "naive",
        "timestamp",
        _raw("timestamp"),
        ("'2024-02-03 10:00:00.5'", "'0001-01-01'", "'infinity'"),
    ),
    Sample("interval_text", "interval", _text, ("'1 year 2 mons -3 days 04:05:06.7'", "'-1 day'")),
    Sample("money", "money", _text, ("12.5::numeric::money", "(-3)::numeric::money")),
    Sample("bytes_text", "bytea", _raw("bytea"), ("'\\xdeadbeef'::bytea", "''::bytea")),
    Sample(
        "epoch",
        "timestamptz",
        models.IntegerField,
        ("'2024-02-03 10:00+05'", "'2025-02-03 10:00+05'"),
    ),
)

_BUILT_IN: Final = tuple(
    Sample(name.replace('"', "_"), f"pg_catalog.{name}", _raw(f"pg_catalog.{name}"), values)
    for name, *values in (
        ("float4", "0.1", "3e38"),
        ('"char"', "'a'", "'\"'"),
        ("name", "'a'", "'b c'"),
        ("bit", "B'0'", "B'1'"),
        ("varbit", "B'0101'", "B''"),
        ("cidr", "'10.0.0.0/8'", "'::/0'"),
        ("macaddr", "'08:00:2b:01:02:03'", "'08:00:2b:01:02:04'"),
        ("macaddr8", "'08:00:2b:01:02:03:04:05'", "'08:00:2b:01:02:03:04:06'"),
        ("timetz", "'10:00+05:30'", "'10:00+00'"),
        ("oid", "1", "4294967295"),
        ("xid8", "'1'", "'18446744073709551615'"),
        ("pg_lsn", "'0/1'", "'F/0'"),
        ("tid", "'(0,1)'", "'(1,2)'"),
        ("tsvector", "'a b:2'", "'c'"),
        ("tsquery", "'a & b'", "'c'"),
        ("regclass", "'pg_catalog.pg_class'", "'pg_catalog.pg_type'"),
        ("regtype", "'pg_catalog.int4'", "'pg_catalog.text'"),
        ("tsrange", "'[2024-01-01,2024-02-03)'", "'empty'"),
        ("int4multirange", "'{[1,5),[7,9)}'", "'{}'"),
        ("int8multirange", "'{[1,5),[7,9)}'", "'{}'"),
        ("nummultirange", "'{[1.5,5)}'", "'{}'"),
        ("datemultirange", "'{[2024-01-01,2024-02-03)}'", "'{}'"),
        ("tsmultirange", "'{[2024-01-01,2024-02-03)}'", "'{}'"),
        ("tstzmultirange", "'{[2024-01-01 10:00+02,2024-02-03 10:00+02)}'", "'{}'"),
    )
)

#: The other types of PostgreSQL with an order, under a field that takes them as they are.
RAW: Final = (
    *_BUILT_IN,
    Sample("texts", "text[]", _raw("text[]"), ("'{a,\"b,c\",NULL}'", "'{}'")),
    Sample(
        "moments", "timestamptz[]", _raw("timestamptz[]"), ("'{2024-02-03 10:00+05:30}'", "'{}'")
    ),
    Sample(
        "record",
        "sample_pair",
        _raw("sample_pair"),
        ("ROW(1, '2024-02-03')", "ROW(2, '2024-02-03')"),
        "CREATE TYPE sample_pair AS (a int, b date)",
    ),
    Sample("ltree", "ltree", _raw("ltree"), ("'a.b'", "'a'"), "CREATE EXTENSION ltree"),
    Sample("cube", "cube", _raw("cube"), ("'(0.1,2)'", "'(1)'"), "CREATE EXTENSION cube"),
    Sample(
        "isbn", "isbn", _raw("isbn"), ("'0-393-04002-X'", "'0-14-044913-2'"), "CREATE EXTENSION isn"
    ),
)

SAMPLES: Final = (*DJANGO, *UNLIKE, *RAW)

#: Types without an order, which can't be a primary key, and types whose JSON is not their text.
NO_KEYS: Final = (
    *(
        Sample(f"{name}_alone", f"pg_catalog.{name}", _raw(f"pg_catalog.{name}"), values)
        for name, *values in (
            ("json", 'E\'{"a": "\\\\u0000", "a": 1.50}\'', "'\"x\"'", "'null'"),
            ("point", "'(0.1,2)'", "'(1e300,-0)'"),
            ("lseg", "'[(0.1,2),(3,4)]'", "'[(0,0),(1,1)]'"),
            ("box", "'(0.1,2),(0,0)'", "'(1,1),(0,0)'"),
            ("path", "'[(0.1,2),(3,4)]'", "'((0,0),(1,1))'"),
            ("polygon", "'((0.1,2),(3,4))'", "'((0,0),(1,1))'"),
            ("line", "'{0.1,2,3}'", "'{1,1,1}'"),
            ("circle", "'<(0.1,2),3.3>'", "'<(1,1),1>'"),
            ("jsonpath", "'$.a[*] ? (@ > 0.1)'", "'$'"),
            ("aclitem", "'=r/pg_monitor'", "'pg_monitor=arw/pg_monitor'"),
            ("xid", "'1'", "'4294967295'"),
            ("cid", "'1'", "'2'"),
            ("int2vector", "'1 2'", "''"),
            ("oidvector", "'1 2'", "''"),
            ("refcursor", "'a'", "'b'"),
            ("pg_snapshot", "'10:20:10,14'", "'1:1:'"),
            ("txid_snapshot", "'10:20:10,14'", "'1:1:'"),
            ("regproc", "'pg_catalog.now'", "'pg_catalog.pi'"),
            ("regprocedure", "'pg_catalog.abs(int4)'", "'pg_catalog.abs(int8)'"),
            ("regoper", "'pg_catalog.||/'", "'pg_catalog.|/'"),
            ("regoperator", "'pg_catalog.+(int4,int4)'", "'pg_catalog.+(int8,int8)'"),
            ("regrole", "'pg_monitor'", "'pg_signal_backend'"),
            ("regnamespace", "'pg_catalog'", "'information_schema'"),
            ("regconfig", "'pg_catalog.english'", "'pg_catalog.simple'"),
            ("regdictionary", "'pg_catalog.simple'", "'pg_catalog.english_stem'"),
            ("regcollation", "'pg_catalog.\"C\"'", "'pg_catalog.\"POSIX\"'"),
        )
    ),
    Sample(
        "xml_alone",
        "xml",
        _raw("xml"),
        ("'<a b=\"c\">ö</a>'", "'text, <b/>'"),
        "SELECT ''::pg_catalog.xml",  # a server may be built without
    ),
    Sample("jsons", "json[]", _raw("json[]"), ('\'{null,"{\\"a\\": [1, null]}"}\'', "'{}'")),
    Sample("hstores", "hstore[]", _raw("hstore[]"), ("ARRAY['a=>1'::samples.hstore]", "'{}'")),
    Sample(
        "floats", "float8[]", _raw("float8[]"), ("ARRAY[0.1::float8 + 0.2, NULL]", "'[3:4]={1,2}'")
    ),
    Sample(
        "periods", "tstzrange[]", _raw("tstzrange[]"), ("'{\"[2024-02-03 10:00+02,)\"}'", "'{}'")
    ),
    Sample("gaps", "interval[]", _raw("interval[]"), ("'{-1 day -02:03:04}'", "'{}'")),
    Sample(
        "mixture",
        "sample_mixture",
        _raw("sample_mixture"),
        (
            "ROW('a=>1', '2024-02-03', '[2024-02-03,)', 0.1::float8 + 0.2, '$1.50')",
            "ROW(NULL, NULL, NULL, NULL, NULL)",
        ),
        "CREATE TYPE sample_mixture AS (h hstore, d date, r daterange, f float8, m money)",
    ),
    Sample(
        "json_domain",
        "sample_json",
        _raw("sample_json"),
        ('\'{"a": "b"}\'', "'\"x\"'"),
        "CREATE DOMAIN sample_json AS json",
    ),
    Sample(
        "required",
        "sample_required",
        _raw("sample_required"),
        ("'a'", "'b'"),
        "CREATE DOMAIN sample_required AS text NOT NULL",
    ),
    Sample(
        "custom_json",
        "sample_stamp",
        _raw("sample_stamp"),
        ("ROW('2024-02-03', 1)", "ROW('2025-02-03', 2)"),
        "CREATE TYPE sample_stamp AS (d date, n int);"
        "CREATE FUNCTION sample_to_json(sample_stamp) RETURNS json LANGUAGE sql AS 'SELECT ''\"lossy\"''::json';"
        "CREATE CAST (sample_stamp AS json) WITH FUNCTION sample_to_json(sample_stamp)",
    ),
    Sample(
        "range_of_floats",
        "sample_floats",
        _raw("sample_floats"),
        ("'[0.1,2)'", "'empty'"),
        "CREATE TYPE sample_floats AS RANGE (subtype = float8)",
    ),
)


def available(
    rows: Callable[[str], list[Any]], samples: tuple[Sample, ...] = SAMPLES
) -> list[Sample]:
    """
    Make the types of the samples in a database.

    Args:
        rows: Runs a statement in a transaction of its own, and returns its rows.
        samples: Those to return, if the server has them.

    Returns:
        The samples whose types this server has. An extension that is not there is no error.
    """
    ((version,),) = rows("SHOW server_version_num")
    extensions = {name for (name,) in rows("SELECT name FROM pg_available_extensions")}
    found = []
    for sample in samples:
        _, _, extension = sample.setup.partition("CREATE EXTENSION ")
        if sample.since > int(version) // 10_000 or (extension and extension not in extensions):
            continue
        if sample.setup:
            try:
                rows(sample.setup)
            except (psycopg.errors.FeatureNotSupported, NotSupportedError):
                continue  # a server that was built without ICU
        found.append(sample)
    return found
