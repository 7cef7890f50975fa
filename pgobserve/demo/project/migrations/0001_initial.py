from __future__ import annotations

from django.db import migrations, models

COUNT_ARRIVALS = """
CREATE FUNCTION count_arrivals() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE harbour SET arrivals = arrivals + (SELECT count(*) FROM arrived)
    WHERE EXISTS (SELECT FROM arrived);
    RETURN NULL;
END $$;
CREATE TRIGGER count_arrivals AFTER INSERT ON ship
    REFERENCING NEW TABLE AS arrived
    FOR EACH STATEMENT EXECUTE FUNCTION count_arrivals();
"""

FORGET_ARRIVALS = """
DROP TRIGGER count_arrivals ON ship;
DROP FUNCTION count_arrivals();
"""


class Migration(migrations.Migration):
    """Make the tables, and count the ships that come."""

    initial = True

    operations = [
        migrations.CreateModel(
            name="Ship",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=60)),
                ("state", models.CharField(db_default="at sea", max_length=20)),
                ("berth", models.CharField(blank=True, max_length=10, null=True)),
                ("cargo", models.IntegerField(db_default=0, help_text="Tonnes.")),
            ],
            options={"db_table": "ship"},
        ),
        migrations.CreateModel(
            name="Harbour",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=60)),
                ("arrivals", models.BigIntegerField(db_default=0)),
            ],
            options={"db_table": "harbour"},
        ),
        migrations.RunSQL(COUNT_ARRIVALS, FORGET_ARRIVALS),
    ]
