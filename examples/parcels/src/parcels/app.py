"""The web service."""

from __future__ import annotations

from flask import Flask, Response, jsonify, request

from parcels.pricing import TooHeavy, UnknownZone, price_cents


def create_app() -> Flask:
    """Make the application."""
    app = Flask(__name__)

    @app.get("/health")
    def health() -> Response:
        return jsonify(status="ok")

    @app.get("/price")
    def price() -> tuple[Response, int]:
        try:
            cents = price_cents(float(request.args.get("kg", "")), request.args.get("zone", "home"))
        except (TooHeavy, UnknownZone) as wrong:
            return jsonify(error=str(wrong)), 400
        except ValueError:
            return jsonify(error="kg must be a number"), 400
        return jsonify(cents=cents), 200

    return app


app = create_app()
