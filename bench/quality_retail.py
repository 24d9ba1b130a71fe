"""A real file whose dirt is listed: what is found of it, and its returns when they are deleted."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import pandas as pd
from aims import Aim
from quality_faults import SHARED

from d2c_mlops.data.quality import assess_quality
from d2c_mlops.data.quality.returns import match_returns

RETAIL = {
    ("cancellation", ""): 9_288, ("negative_quantity", ""): 10_624, ("price_not_positive", ""): 2_517, ("missing_field", "CustomerID"): 135_080,
    ("missing_field", "Description"): 1_454, ("exact_duplicates", ""): 5_268,
}  # fmt: skip


def retail() -> Iterator[Aim]:
    """Assess a real file whose dirt is listed, and delete its cancellations."""
    file = SHARED / "online_retail.parquet"
    if not file.exists():
        print("left out: ../shared/data/online_retail.parquet is absent")
        return
    frame = pd.read_parquet(file)
    report = assess_quality(frame, date(2011, 12, 9))
    rows = {(f.check, f.column): f.rows for f in report.findings}
    wrong = {key: rows.get(key) for key, count in RETAIL.items() if rows.get(key) != count}
    yield Aim(
        "online_retail: dirt found with its counts",
        f"{len(RETAIL) - len(wrong)} of {len(RETAIL)} {wrong or ''}",
        not wrong,
    )
    codes = {key for f in report.findings if f.check.startswith("product_") for key in f.keys}
    needed = {"POST", "DOT", "C2", "BANK CHARGES", "AMAZONFEE", "M", "D", "S", "CRUK", "B"}
    yield Aim(
        "online_retail: postage and fees named as such", f"{len(needed & codes)} of {len(needed)}", needed <= codes
    )
    yield from deleted_cancellations(frame)


def deleted_cancellations(frame: pd.DataFrame) -> Iterator[Aim]:
    """Delete the cancellations; estimate their share without a table of refunds, and name the lines that they undo with one."""
    cancelled = frame["InvoiceNo"].str.startswith("C")
    sold = frame[~cancelled].reset_index(drop=True)
    refunds = frame[cancelled].rename(columns={"InvoiceDate": "refunded_at"}).reset_index(drop=True)
    blind = next((f for f in assess_quality(sold, date(2011, 12, 9)).findings if f.check == "no_returns"), None)
    share = 0.0 if blind is None else blind.share
    truth = len(refunds) / len(sold)
    what = "online_retail: share of returns within 3 points without refunds"
    yield Aim(what, f"{share:.1%}, and {truth:.1%} were deleted", abs(share - truth) <= 0.03)
    report = assess_quality(sold, date(2011, 12, 9), reference={"refunds": refunds.drop(columns="InvoiceNo")})
    named = next((f for f in report.findings if f.check == "refunded_lines"), None)
    known = refunds[refunds["CustomerID"].notna()].reset_index(names="refund")
    buys = sold[(sold["Quantity"] > 0) & sold["CustomerID"].notna()].reset_index(names="line")
    pairs = known.merge(buys, on=["CustomerID", "StockCode"], suffixes=("", " sold"))
    pairs = pairs[(pairs["InvoiceDate"] <= pairs["refunded_at"]) & (pairs["Quantity sold"] >= -pairs["Quantity"])]
    possible = pairs["refund"].nunique()
    text = f"{named.rows if named else 0:,} of {possible:,} that undo a line of the file; {len(refunds) - possible:,} undo lines before its first day"
    yield Aim(
        "online_retail: refunds whose line is named, recall >= .90",
        text,
        named is not None and named.rows >= 0.9 * possible,
    )
    single = pairs.groupby("refund").filter(lambda part: len(part) == 1)
    rows = refunds.rename(
        columns={"CustomerID": "customer_id", "StockCode": "product_id", "UnitPrice": "price", "refunded_at": "at"}
    )
    rows = rows.assign(quantity=-rows["Quantity"]).dropna(subset=["customer_id"])
    lines = buys.set_index("line").rename(columns={"CustomerID": "customer_id", "StockCode": "product_id", "Quantity": "quantity", "UnitPrice": "price", "InvoiceDate": "at"})  # fmt: skip
    matched = match_returns(lines, rows)
    told = matched.reindex(single["refund"]).to_numpy()
    right, wrong = (
        int((told == single["line"].to_numpy()).sum()),
        int(((told != single["line"].to_numpy()) & (told >= 0)).sum()),
    )
    precision, recall = right / max(right + wrong, 1), right / max(len(single), 1)
    text = f"precision {precision:.3f}, recall {recall:.3f} of {len(single):,} refunds that only one line can have"
    yield Aim(
        "online_retail: lines of refunds found at precision >= .95 and recall >= .90",
        text,
        precision >= 0.95 and recall >= 0.9,
    )
