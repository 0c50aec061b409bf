-- ROWS is put in by the bench. In memory: the disk is not what is measured.
create table item(id integer primary key, name text, kind integer, price real);
with recursive n(i) as (select 1 union all select i + 1 from n where i < ROWS)
  insert into item select i, 'item ' || hex(i * 2654435761 % 4294967296), i % 97, i * 1.25 from n;
create index item_name on item(name);
create index item_kind on item(kind, price);
select count(*), sum(price) from item where kind between 10 and 20;
select kind, count(*), max(name) from item group by kind order by count(*) desc, kind limit 3;
select count(*) from item a join item b on b.name = a.name where a.kind = 5;
update item set price = price + 1 where kind % 2 = 0;
delete from item where kind = 3;
select count(*), round(sum(price)) from item;
select group_concat(upper(substr(name, 6, 3)), '') from (select name from item order by name limit 50);
