"""The fold of bench/project in Spark's words. Runs in Spark's own environment."""

from __future__ import annotations

import argparse

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as in Spark's own documentation
from pyspark.sql.types import LongType, StringType, StructField, StructType

TEXTS = ("order_id", "customer_id", "currency", "placed_at", "paid_at", "shipped_at")
DATA = StructType(
    [StructField(name, StringType()) for name in TEXTS] + [StructField("total_cents", LongType())]
)
EVENT = StructType([StructField("type", StringType()), StructField("data", DATA)])
STATUSES = {
    "OrderPlaced": "placed",
    "OrderPaid": "paid",
    "OrderShipped": "shipped",
    "OrderCancelled": "cancelled",
}
TUNED = {
    "kafka.max.poll.records": "20000",
    "kafka.fetch.max.bytes": "67108864",
    "kafka.max.partition.fetch.bytes": "8388608",
    "kafka.check.crcs": "false",
}


def session(asked: argparse.Namespace) -> SparkSession:
    settings = {
        "spark.jars": asked.jars,
        "spark.driver.memory": asked.memory,
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": asked.parallel,
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.objectHashAggregate.sortBased.fallbackThreshold": "1000000",
    }
    return (
        SparkSession.builder.master(f"local[{asked.parallel}]").config(map=settings).getOrCreate()
    )


def events(spark: SparkSession, asked: argparse.Namespace) -> DataFrame:
    records = (
        spark.read.format("kafka")
        .options(**TUNED)
        .option("kafka.bootstrap.servers", asked.brokers)
        .option("subscribe", asked.topic)
        .option("startingOffsets", "earliest")
        .option("endingOffsets", "latest")
        .load()
    )
    event = F.from_json(F.col("value").cast("string"), EVENT)
    return records.select("offset", event.alias("event")).select(
        "offset", "event.type", "event.data.*"
    )


def status() -> Column:
    """The last event of an order that sets one, which is of one partition, says what it is."""
    found = F.lit(None)
    for event_type, name in STATUSES.items():
        found = F.when(F.col("type") == event_type, name).otherwise(found)
    return F.max(F.when(found.isNotNull(), F.struct("offset", found.alias("status")))).getField(
        "status"
    )


def folded(found: DataFrame) -> DataFrame:
    return found.groupBy("order_id").agg(
        F.max("customer_id").alias("customer_id"),
        status().alias("status"),
        F.max("currency").alias("currency"),
        F.max("total_cents").alias("total_cents"),
        F.sum((F.col("type") == "OrderLineAdded").cast("int")).cast("int").alias("lines"),
        F.max("placed_at").alias("placed_at"),
        F.max("paid_at").alias("paid_at"),
        F.max("shipped_at").alias("shipped_at"),
        F.count("*").cast("int").alias("version"),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("brokers", "topic", "url", "user", "password", "table"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("memory", "parallel", "jars"):
        parser.add_argument(f"--{name}", required=True)
    asked = parser.parse_args()
    spark = session(asked)
    spark.sparkContext.setLogLevel("ERROR")
    (
        folded(events(spark, asked))
        .write.format("jdbc")
        .option("url", asked.url)
        .option("user", asked.user)
        .option("password", asked.password)
        .option("driver", "org.postgresql.Driver")
        .option("dbtable", asked.table)
        .option("batchsize", "10000")
        .option("numPartitions", asked.parallel)
        .mode("append")
        .save()
    )
    spark.stop()


if __name__ == "__main__":
    main()
