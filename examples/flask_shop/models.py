"""The shop's tables, and a database session per thread that ends with the application context."""

from __future__ import annotations

import hashlib
import secrets

from flask import Flask
from sqlalchemy import ForeignKey, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, scoped_session, sessionmaker
from werkzeug.security import generate_password_hash

db = scoped_session(sessionmaker())


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    password: Mapped[str]
    token_hash: Mapped[str] = mapped_column(unique=True)
    is_manager: Mapped[bool] = mapped_column(default=False)
    orders: Mapped[list[Order]] = relationship(back_populates="user", order_by="Order.id")


class Product(Base):
    __tablename__ = "product"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    cents: Mapped[int]


class Order(Base):
    __tablename__ = "order"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey(User.id))
    product_id: Mapped[int] = mapped_column(ForeignKey(Product.id))
    quantity: Mapped[int]
    # Names the attempt that placed it, so that repeating the attempt does not repeat the order.
    key: Mapped[str] = mapped_column(unique=True)
    user: Mapped[User] = relationship(back_populates="orders")
    product: Mapped[Product] = relationship()

    def as_dict(self) -> dict[str, object]:
        return {"id": self.id, "product": self.product.name, "quantity": self.quantity}


def init_app(app: Flask) -> None:
    """Bind the session to the application's database, and end it with each application context."""
    db.remove()
    db.configure(bind=create_engine(app.config["DATABASE"]))

    @app.teardown_appcontext
    def close(error: BaseException | None) -> None:
        db.remove()


def hash_token(token: str) -> str:
    """What is stored of an API token."""
    return hashlib.sha256(token.encode()).hexdigest()


def create_all() -> dict[str, str]:
    """Create the tables and their first rows, and return the users' API tokens."""
    Base.metadata.create_all(db.get_bind())
    tokens = {name: secrets.token_urlsafe(24) for name in ("ann", "bob", "eve")}
    for name, token in tokens.items():
        password = generate_password_hash(f"{name}'s password")
        db.add(User(name=name, password=password, token_hash=hash_token(token), is_manager=name == "eve"))
    db.add_all([Product(name="teapot", cents=2400), Product(name="cup", cents=600), Product(name="kettle", cents=3900)])
    db.commit()
    return tokens
